"""CLIP score: the cosine of a sample and the text that it was asked for, in the space of a given CLIP."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from diffsweep.evaluation.extractor import sha256
from diffsweep.evaluation.opacity import over_white
from diffsweep.messages import say
from diffsweep.mistakes import BadValue, one_line
from diffsweep.scoring.clip_folder import clip_architecture, clip_content, clip_folder
from diffsweep.scoring.requests import Requests
from diffsweep.scoring.text_metrics import TextScore, from_cache, held_out_pairs, why_no_texts
from diffsweep.transformers_folder import LOCAL, loading, require_transformers, whole_model

# Pairs that the network is given at a time.
_BATCH = 16
# What pictures and texts come to their common space by: a part of a CLIP lacks one of them.
_BOTH = ("visual_projection.weight", "text_projection.weight")
# Of the kept values: raise it when the same pairs would have others.
_VERSION = "1"


@dataclass(frozen=True)
class ClipScore:
    """`clip_score_CONTENT`, 100 max(cosine, 0) of samples and their texts, mean over samples.

    Source: "CLIPScore: A Reference-free Evaluation Metric for Image Captioning", arXiv 2104.08718, equation 1, with 100
    in the place of its 2.5, as torchmetrics and papers on text to image have it. Another CLIP gives other numbers, so
    the name of the number ends with eight characters of the identity of the weights. Larger is better; what real
    held-out pairs reach is given as its floor.

    Args:
        folder: Of a CLIP as transformers' save_pretrained writes it, with safetensors.
        content: Its identity, as of `clip_content`.

    Raises:
        ValueError: in one line, for no folder, saying how to get one, or for one that is no such CLIP.
    """

    folder: str | None
    content: str | None

    def __post_init__(self) -> None:
        folder = clip_folder(self.folder)
        require_transformers("metric=clip_score")
        names: set[str] = set()
        try:
            for path in folder.glob("*.safetensors"):
                with safe_open(path, framework="pt") as stream:
                    names.update(stream.keys())
        except (OSError, SafetensorError) as error:
            rule = f"has weights that cannot be read ({one_line(error)[:200]}): get them again"
            raise BadValue("folder", self.folder, rule) from error
        lacking = [name for name in _BOTH if name not in names]
        if lacking:
            raise BadValue("folder", self.folder, f"has weights without {lacking[0]}: they are of no whole CLIP")

    @property
    def short(self) -> str:
        """See `TextMetric.short`."""
        return f"clip_score_{str(self.content)[:8]}"

    @property
    def by(self) -> str:
        """See `TextMetric.by`: it says what the network is, not where it lies."""
        return f"ClipScore {clip_architecture(self.folder)}, weights {self.content}"

    def absence(self, requests: Requests) -> str | None:
        """See `TextMetric.absence`."""
        return why_no_texts(requests)

    def ready(self, requests: Requests, cache: Path) -> TextScore:
        """See `TextMetric.ready`."""
        found = clip_content(self.folder)
        if found != self.content:
            raise ValueError(
                f"the CLIP in {self.folder} is no longer that of this run: its content was {self.content} and is "
                f"{found} now"
            )
        clip = _loaded(str(self.folder), found)

        def score(samples: Tensor, numbers: Tensor, texts: Sequence[str]) -> Tensor:
            return 100 * clip.cosines(samples, texts).clamp(min=0)

        real = held_out_pairs(requests)

        def of_real() -> dict[str, Tensor]:
            return {"values": score(real.x, real.numbers, real.texts) if real.texts else torch.zeros(0)}

        identity = sha256(_VERSION, found, requests.dataset.load("test").digest(), json.dumps(real.texts))
        path = Path(cache) / "clip_score" / f"{identity[:24]}.safetensors"
        values = from_cache(path, "metric clip_score", "computes that of real pairs", of_real)["values"]
        return TextScore(score, float(values.mean()) if len(values) else None, self.by)


class _Clip:
    """A CLIP of transformers, on the device of the samples.

    Args:
        model: A CLIPModel.
        tokenizer: Of its texts.
        pictures: Its image processor.
    """

    def __init__(self, model: Any, tokenizer: Any, pictures: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.pictures = pictures
        self.length = int(model.config.text_config.max_position_embeddings)

    @torch.inference_mode()
    def cosines(self, samples: Tensor, texts: Sequence[str]) -> Tensor:
        """Of uint8 pictures (N, C, H, W), grey, coloured or with opacity, and N texts: float (N,), on their device."""
        model = self.model.to(samples.device)
        seen = over_white(samples)
        seen = seen.expand(-1, 3, -1, -1) if seen.shape[1] == 1 else seen
        found: list[Tensor] = []
        # In float32 whatever a run computes in.
        with (
            torch.autocast(samples.device.type, enabled=False),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ):
            for start in range(0, len(texts), _BATCH):
                part = list(texts[start : start + _BATCH])
                given = self.tokenizer(
                    part, padding=True, truncation=True, max_length=self.length, return_tensors="pt"
                ).to(samples.device)
                pixels = self.pictures(
                    list(seen[start : start + len(part)]), input_data_format="channels_first", return_tensors="pt"
                )["pixel_values"].to(samples.device)
                both = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"], pixel_values=pixels)
                found.append((both.image_embeds * both.text_embeds).sum(1))
        return torch.cat(found)


@lru_cache(maxsize=1)
def _loaded(folder: str, content: str) -> _Clip:
    """The CLIP in a folder of this content. Raises ValueError, in one line, if it cannot be loaded whole."""
    transformers = require_transformers("metric=clip_score")
    try:
        with loading(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **LOCAL)
            pictures = transformers.CLIPImageProcessor.from_pretrained(folder, **LOCAL)
            model = whole_model(transformers.CLIPModel, folder)
    except Exception as error:
        # What transformers raise is of many kinds, for files of many kinds.
        why = one_line(error).split(". ")[0][:300]
        raise ValueError(f"{folder} holds no CLIP that can be read here ({why})") from error
    say(f"samples and texts are compared by the CLIP in {folder} ({content})")
    return _Clip(model, tokenizer, pictures)
