"""What the language models of a text-to-image pipeline make of a text, as the pipeline's own code does.

Tokens of several models lie side by side (Stable Diffusion XL, arXiv 2307.01952, section 2.1), or one after another as
well (Stable Diffusion 3, arXiv 2403.03206, section 5), or are those of the last model alone (Flux), and a last row has
what is known of the text as a whole, filled up with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffsweep.conditioners.text_encoder import PIPELINES, pipeline_content
from diffsweep.messages import say
from diffsweep.mistakes import one_line
from diffsweep.transformers_folder import LOCAL, loading, require_transformers, whole_model

# Texts that the models are given at a time.
_BATCH = 32
_MODELS = ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel")


@dataclass(frozen=True)
class PipelineTextEncoder:
    """The language models of a pipeline, loaded when they are first asked.

    Attributes:
        folder: Of the pipeline.
        pipeline: Its kind, stable_diffusion_xl, stable_diffusion_3 or flux.
        content: Identity that they must have.
        length: Rows that any text becomes: tokens, and one for the text as a whole.
        width: Numbers of each.
    """

    folder: str
    pipeline: str
    content: str
    length: int
    width: int
    filled = True
    dtype = torch.float32

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens float32 (N, length, width), and bool (N, length), all true.

        Raises:
            ValueError: in one line, if they cannot be loaded, or are others than `content` says.
        """
        found = pipeline_content(self.folder, self.pipeline)
        if found != self.content:
            raise ValueError(f"the language models in {self.folder} are no longer those of this run")
        models = _loaded(self.folder, self.pipeline, found)
        parts: list[Tensor] = []
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            for start in range(0, len(texts), _BATCH):
                parts.append(self._rows(list(texts[start : start + _BATCH]), models))
        rows = torch.cat(parts) if parts else torch.zeros(0, self.length, self.width)
        return rows, torch.ones(len(texts), self.length, dtype=torch.bool)

    def _rows(self, texts: list[str], models: Sequence[tuple[Any, Any]]) -> Tensor:
        if self.pipeline == "flux":
            (tokenizer, clip), (other, t5) = models
            whole = clip(_ids(texts, tokenizer, tokenizer.model_max_length)).pooler_output
            tokens = t5(_ids(texts, other, self.length - 1))[0]
            return torch.cat([tokens, _wide(whole[:, None], self.width)], dim=1)
        clips = [_clip(texts, *pair) for pair in models[:2]]
        tokens = torch.cat([one for one, _ in clips], dim=2)
        whole = torch.cat([one for _, one in clips if one is not None], dim=1)
        if self.pipeline == "stable_diffusion_3":
            tokens = torch.cat(
                [_wide(tokens, self.width), self._t5(texts, models[2:], self.length - 1 - tokens.shape[1])], dim=1
            )
        return torch.cat([_wide(tokens, self.width), _wide(whole[:, None], self.width)], dim=1)

    def _t5(self, texts: list[str], models: Sequence[tuple[Any, Any]], length: int) -> Tensor:
        if not models:
            return torch.zeros(len(texts), length, self.width)
        tokenizer, model = models[0]
        return model(_ids(texts, tokenizer, length))[0]


def _clip(texts: list[str], tokenizer: Any, model: Any) -> tuple[Tensor, Tensor | None]:
    """The last layer but one, (N, tokens, width), and the projection of the whole text (N, width) where it has one."""
    found = model(_ids(texts, tokenizer, tokenizer.model_max_length), output_hidden_states=True)
    whole = found[0] if found[0].ndim == 2 else None
    return found.hidden_states[-2], whole


def _ids(texts: list[str], tokenizer: Any, length: int) -> Tensor:
    given = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return given["input_ids"]


def _wide(rows: Tensor, width: int) -> Tensor:
    return F.pad(rows, (0, width - rows.shape[2]))


@lru_cache(maxsize=1)
def _loaded(folder: str, pipeline: str, content: str) -> list[tuple[Any, Any]]:
    """Tokenizers and models of a pipeline of this content, in their order."""
    transformers = require_transformers("condition=text")
    found: list[tuple[Any, Any]] = []
    for part in PIPELINES[pipeline]:
        place = Path(folder) / part
        if not place.is_dir():
            continue
        try:
            with loading(transformers):
                config = transformers.AutoConfig.from_pretrained(str(place), **LOCAL)
                name = next(iter(config.architectures or ()), "")
                if name not in _MODELS:
                    raise ValueError(f"its architecture {name or 'is not said'} is none of {', '.join(_MODELS)}")
                tokens = Path(folder) / part.replace("text_encoder", "tokenizer")
                tokenizer = transformers.AutoTokenizer.from_pretrained(str(tokens), **LOCAL)
                model = whole_model(getattr(transformers, name), place)
        except Exception as error:
            # What transformers raise is of many kinds, for files of many kinds.
            why = one_line(error)[:300]
            raise ValueError(f"{place} holds no language model that can be read here ({why})") from error
        found.append((tokenizer, model))
    say(f"texts are read by {len(found)} language models of {folder} ({content})")
    return found
