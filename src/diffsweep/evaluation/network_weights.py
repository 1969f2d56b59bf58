"""Weights of a network from a file that the user gives: nothing in it is executed, and its SHA-256 names it."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from diffsweep.evaluation.pretrained import File, find
from diffsweep.mistakes import BadValue, one_line

# Where training scripts put the weights among other things.
_WRAPPERS = ("state_dict", "model", "model_state_dict")


@dataclass(frozen=True)
class Weights:
    """Which weights a network has.

    Attributes:
        digest: of their content.
        files: that they were read from.
    """

    digest: str
    files: tuple[Path, ...]


def load_into(network: nn.Module, what: str, path: str | None, sha256: str | None) -> Weights:
    """Put the weights of a file into a network.

    Args:
        network: that they are for.
        what: its name, for messages.
        path: of a safetensors file, or one that `torch.save` wrote of tensors alone.
        sha256: of the file (hex).

    Raises:
        ValueError: in one line, for a file that is not there, is another, holds more than tensors or does not fit.
    """
    if path is None:
        raise BadValue("weights", None, f"names no file: give the path of the weights of {what}")
    found = find(File(f"the weights of {what}", Path(path).name, sha256, "where you have them from", False), path)
    state = _state(found.content, found.path)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{found.path} holds no weights of {what}: {' '.join(str(error).split())[:200]}") from None
    return Weights(found.digest, (found.path,))


def _state(content: bytes, path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load(content)
        state: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} holds more than tensors, which could run any code: save its state_dict alone, best as safetensors"
        ) from None
    except (SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"{path} is no file of weights: {one_line(error)[:200]}") from None
    for key in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state_dict: a mapping of names to tensors")
    return state
