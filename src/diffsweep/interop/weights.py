"""Weights of foreign files: safetensors, and pickles of tensors only. Nothing in a file is ever run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.interop.configuration import read_object

if TYPE_CHECKING:
    from torch import Tensor

# The longest header that safetensors itself reads.
_HEADER = 100_000_000
_PICKLES = (".pt", ".pth", ".bin", ".ckpt")
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Weights:
    """The weights of one network, in one file or several.

    Attributes:
        files: Where they are.
        entry: Dotted key under which a pickle holds them, as ema; "" for its top.
        prefix: What the names in the files begin with, to be left out; names without it are not read.
    """

    files: tuple[Path, ...]
    entry: str = ""
    prefix: str = ""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor, by name; of safetensors without reading them. Raises ValueError."""
        found: dict[str, tuple[int, ...]] = {}
        for file in self.files:
            if file.suffix == ".safetensors":
                found |= {name: tuple(known["shape"]) for name, known in header(file)[0].items()}
            else:
                found |= {
                    name: tuple(value.shape) for name, value in _unpickled(file, self.entry, _stamp(file)).items()
                }
        return self._named(found, found)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, on the CPU. Raises ValueError, in one line, for a file that is none of weights."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        found: dict[str, Tensor] = {}
        for file in self.files:
            if file.suffix == ".safetensors":
                header(file)
                try:
                    found |= load_file(file)
                except (OSError, SafetensorError, ValueError) as error:
                    raise ValueError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
            else:
                found |= _unpickled(file, self.entry, _stamp(file))
        return self._named(found, found)

    def digest(self) -> str:
        """sha256 of names, types, shapes and values, the same however they are spread over files. Raises ValueError."""
        return _digest(self, tuple(_stamp(file) for file in self.files))

    def _named(self, found: Mapping[str, Any], names: Mapping[str, object]) -> dict[str, Any]:
        kept = {name.removeprefix(self.prefix): found[name] for name in names if name.startswith(self.prefix)}
        if not kept:
            beginning = f" whose names begin with {self.prefix}" if self.prefix else ""
            raise ValueError(f"{self.files[0]} has no tensors{beginning}")
        return kept


def of_folder(folder: Path, names: Sequence[str]) -> Weights:
    """The weights in a folder: the first of the files that is there, whole or in shards.

    Raises:
        ValueError: if none is there, or a shard is missing.
    """
    for name in names:
        whole = folder / name
        index = folder / f"{name}.index.json"
        if whole.is_file():
            return Weights((whole,))
        if index.is_file():
            return Weights(tuple(_shards(index)))
    raise ValueError(f"{folder} has no weights: there is none of {', '.join(names)}")


def _shards(index: Path) -> Iterator[Path]:
    known = read_object(index).get("weight_map")
    if not isinstance(known, dict) or not known:
        raise ValueError(f"{index} has no weight_map")
    for name in sorted(set(map(str, known.values()))):
        # A name with a folder in it might lead anywhere.
        if not re.fullmatch(r"[\w.-]+\.(safetensors|bin)", name, re.ASCII):
            raise ValueError(f"{index} names {name!r}, which is no file of weights beside it")
        if not (index.parent / name).is_file():
            raise ValueError(f"{index.parent / name} is missing: {index.name} names it")
        yield index.parent / name


def header(file: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Name -> dtype, shape and data_offsets of a safetensors file, and where its data begin. Raises ValueError."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > min(_HEADER, size - 8):
                raise ValueError(f"{file} is no safetensors file, or was cut")
            text = stream.read(length)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror or error}") from error
    try:
        known = json.loads(text)
        known.pop("__metadata__", None)
        for name, one in known.items():
            first, last = one["data_offsets"]
            sizes = one["shape"]
            if not (
                isinstance(name, str) and isinstance(one["dtype"], str) and 0 <= first <= last <= size - 8 - length
            ):
                raise ValueError("a tensor lies outside of the file")
            if not all(isinstance(side, int) and side >= 0 for side in sizes):
                raise ValueError("a tensor has no shape")
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no safetensors file, or was cut: {' '.join(str(error).split())}") from error
    return known, 8 + length


def _stamp(file: Path) -> tuple[int, int]:
    try:
        known = file.stat()
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror or error}") from error
    return known.st_size, known.st_mtime_ns


# A sweep asks for every cell; a file that was replaced meanwhile has another stamp.
@lru_cache(64)
def _digest(weights: Weights, stamps: tuple[tuple[int, int], ...]) -> str:
    each: dict[str, str] = {}
    for file in weights.files:
        each |= _of_safetensors(file) if file.suffix == ".safetensors" else _of_pickle(file, weights.entry)
    # Values of one network are one, whatever its names begin with.
    kept = weights._named(each, each)
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _of_safetensors(file: Path) -> dict[str, str]:
    known, start = header(file)
    found = {}
    with file.open("rb") as stream:
        for name, one in known.items():
            first, last = one["data_offsets"]
            digest = hashlib.sha256(f"{one['dtype']} {one['shape']} ".encode())
            stream.seek(start + first)
            for place in range(first, last, _BLOCK):
                digest.update(stream.read(min(_BLOCK, last - place)))
            found[name] = digest.hexdigest()
    return found


def _of_pickle(file: Path, entry: str) -> dict[str, str]:
    import torch

    names = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    found = {}
    for name, value in _unpickled(file, entry, _stamp(file)).items():
        kind = names.get(value.dtype, str(value.dtype).removeprefix("torch.").replace("int", "I"))
        digest = hashlib.sha256(f"{kind} {list(value.shape)} ".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        found[name] = digest.hexdigest()
    return found


@lru_cache(2)
def _unpickled(file: Path, entry: str, stamp: tuple[int, int]) -> dict[str, Tensor]:
    """The tensors that a pickle holds under a dotted key. Raises ValueError for one that would run code."""
    import torch

    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror or error}") from error
    except Exception as error:
        raise ValueError(
            f"{file} is a pickle of more than tensors, or damaged, and is not opened, for it could run code: where you "
            'trust it, convert it once, as python -c "import torch, safetensors.torch as s; '
            "s.save_file(torch.load('FILE', weights_only=False)['ema'].state_dict(), 'model.safetensors')\""
        ) from error
    for key in entry.split(".") if entry else ():
        if not isinstance(content, Mapping) or key not in content:
            raise ValueError(f"{file} has no entry {entry}")
        content = content[key]
    if not isinstance(content, Mapping):
        raise ValueError(f"{file} holds a {type(content).__name__}, no weights by name")
    found = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not found:
        kinds = ", ".join(sorted(map(str, content))[:6])
        raise ValueError(f"{file} holds no tensors by name but {kinds or 'nothing'}")
    return found


def pickled_entries(file: Path) -> list[str]:
    """The keys of a pickle that hold weights by name, as ema and model of a training. Raises ValueError."""
    import torch

    try:
        content: Any = torch.load(file, map_location="meta", weights_only=True)
    except Exception:
        _unpickled(file, "", _stamp(file))
        raise
    if not isinstance(content, Mapping):
        return []
    return [
        str(key)
        for key, below in content.items()
        if isinstance(below, Mapping) and below and all(isinstance(one, torch.Tensor) for one in below.values())
    ]


def is_weights(path: Path) -> bool:
    """Whether a file has the name of a file of weights."""
    return path.suffix == ".safetensors" or path.suffix in _PICKLES
