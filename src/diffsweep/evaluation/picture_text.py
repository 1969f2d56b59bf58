"""An encoder of pictures and one of their captions with one space for both, trained here on pairs of the data itself.

The loss is that of "Learning Transferable Visual Models From Natural Language Supervision" (arXiv 2103.00020, figure
3): in a batch each picture must find its caption, and each caption its picture. Captions are bags of words: nothing of
it was learned elsewhere, so it knows what these data show and nothing more.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WORDS, WIDTH = 4096, 64
# Part of the identity of whatever is measured with it: to be changed together with what is trained here.
ARCHITECTURE = "1: three convolutions, bags of words, 64 numbers"
BATCH, RATE = 128, 2e-3


class PictureTextEncoder(nn.Module):
    """Unit vectors of `WIDTH` numbers of pictures and of texts.

    Args:
        channels: of the pictures.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(channels, 32), *_convolution(32, 64), *_convolution(64, 128), nn.AdaptiveAvgPool2d(2)
        )
        self.from_picture = nn.Linear(4 * 128, WIDTH)
        self.words = nn.EmbeddingBag(WORDS, 128, mode="mean")
        self.from_text = nn.Sequential(nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, WIDTH))
        self.sharpness = nn.Parameter(torch.tensor(2.0))

    def pictures(self, x: Tensor) -> Tensor:
        """(N, WIDTH) of uint8 pictures (N, C, H, W), or of floats in 0..255."""
        features = self.body(x.float() / 127.5 - 1).flatten(1)
        return F.normalize(self.from_picture(features), dim=1)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """(N, WIDTH) of N texts."""
        bags = [bag_of_words(text) for text in texts]
        device = self.sharpness.device
        starts = torch.tensor([0, *(len(bag) for bag in bags[:-1])]).cumsum(0).to(device)
        flat = torch.tensor([word for bag in bags for word in bag], dtype=torch.int64, device=device)
        return F.normalize(self.from_text(self.words(flat, starts)), dim=1)


def _convolution(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(after), nn.SiLU()]


def bag_of_words(text: str) -> list[int]:
    """The numbers of a text's words, the same in every process; two words rarely share one."""
    words = re.findall(r"\w+", text.lower()) or [""]
    return [zlib.crc32(word.encode(errors="replace")) % WORDS for word in words]


def fit(x: Tensor, texts: Sequence[str], steps: int) -> PictureTextEncoder:
    """An encoder of uint8 pictures (N, C, H, W) and their texts, trained from seed 0, in evaluation mode.

    Pictures are shifted by up to an eighth of their size. A text that a batch has twice is no wrong answer.
    """
    stream = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = PictureTextEncoder(x.shape[1])
    known = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    numbers = torch.tensor([known[text] for text in texts])
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    with torch.enable_grad():
        for _ in range(steps):
            batch = torch.randint(len(x), (min(BATCH, len(x)),), generator=stream)
            pictures = network.pictures(_shifted(x[batch].float(), stream))
            same = numbers[batch, None] == numbers[batch]
            scores = network.sharpness.exp() * pictures @ network.texts([texts[int(i)] for i in batch.tolist()]).T
            scores = scores.masked_fill(same & ~torch.eye(len(batch), dtype=torch.bool), -torch.inf)
            right = torch.arange(len(batch))
            loss = (F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
    return network.requires_grad_(False).eval()


def _shifted(x: Tensor, stream: torch.Generator) -> Tensor:
    """Pictures, each moved by a step of its own; what comes in repeats the edge."""
    height, width = x.shape[2:]
    down, right = (
        torch.randint(-(size // 8), size // 8 + 1, (len(x), 1), generator=stream) for size in (height, width)
    )
    rows = (torch.arange(height) + down).clamp(0, height - 1)[:, None, :, None]
    columns = (torch.arange(width) + right).clamp(0, width - 1)[:, None, None, :]
    return x[torch.arange(len(x))[:, None, None, None], torch.arange(x.shape[1])[None, :, None, None], rows, columns]


@torch.inference_mode()
def finds(network: PictureTextEncoder, x: Tensor, texts: Sequence[str], others: Sequence[Sequence[str]]) -> Tensor:
    """Whether each picture is nearer to its text than to every one of the others, float (N,).

    Args:
        network: on the device of the pictures.
        x: uint8 (N, C, H, W).
        texts: N.
        others: for each picture some texts that are not its own.
    """
    every = list(dict.fromkeys([*texts, *(text for some in others for text in some)]))
    place = {text: number for number, text in enumerate(every)}
    scores = network.pictures(x) @ network.texts(every).T
    found = [
        bool(row[place[text]] > row[[place[one] for one in some]].max()) if some else True
        for row, text, some in zip(scores, texts, others, strict=True)
    ]
    return torch.tensor(found, dtype=torch.float32, device=x.device)
