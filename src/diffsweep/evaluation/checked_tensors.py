"""Files of tensors that carry a checksum of what they hold: one that is absent, cut short or altered is not there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from diffsweep.evaluation.extractor import sha256
from diffsweep.files import write_atomic


def write_tensors(path: Path, stored: Mapping[str, Tensor]) -> None:
    """Write the file, whole or not at all. Raises CannotWriteError."""
    stored = {name: value.contiguous() for name, value in stored.items()}
    write_atomic(path, save(stored, {"sha256": _checksum(stored)}))


def read_tensors(path: Path) -> dict[str, Tensor] | None:
    """What the file holds; None if it is not as it was written."""
    try:
        with safe_open(path, framework="pt") as stream:
            stored = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a mapping)
            return stored if _checksum(stored) == (stream.metadata() or {}).get("sha256") else None
    except (OSError, SafetensorError):
        return None


def _checksum(stored: Mapping[str, Tensor]) -> str:
    return sha256(*(part for name in sorted(stored) for part in (name, stored[name].numpy().tobytes())))
