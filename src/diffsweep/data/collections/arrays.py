"""Arrays of uint8 in .npz and .npy files."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

from diffsweep.data.collections.members import Members
from diffsweep.data.collections.names import one_line


def of_array(path: Path) -> Members:
    """The pictures of an array. Raises ValueError for what is no array of uint8 images."""
    import numpy as np

    try:
        loaded: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} holds no array that can be read ({one_line(error)})") from error
    labels = None
    if path.suffix.lower() == ".npz":
        arrays = [name for name in loaded.files if name not in ("labels", "arr_1", "label", "y")]
        chosen = next((name for name in ("arr_0", "images", "x") if name in arrays), arrays[0] if arrays else None)
        if chosen is None:
            raise ValueError(f"{path} holds no images, but {', '.join(loaded.files) or 'nothing'}")
        named = next((name for name in ("labels", "arr_1", "label", "y") if name in loaded.files), None)
        labels = None if named is None else _array_of(path, loaded, named)
        loaded = _array_of(path, loaded, chosen)
    x = _channels_last(path, loaded)
    if labels is not None and labels.shape != (len(x),):
        raise ValueError(f"{path} has labels of shape {labels.shape} for {len(x):,} images: they must be ({len(x)},)")
    if labels is not None and labels.dtype.kind not in "biuSU":
        raise ValueError(f"{path} has labels of {labels.dtype}: they must be whole numbers or text")
    nothing = [None] * len(x)
    shown = nothing if labels is None else [sys.intern(str(label)) for label in labels.tolist()]
    return Members([f"{i:08d}" for i in range(len(x))], lambda place: np.asarray(x[place]), shown, nothing, nothing)


def _array_of(path: Path, loaded: Any, name: str) -> Any:
    try:
        return loaded[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, MemoryError) as error:
        raise ValueError(f"{name} of {path} cannot be read ({one_line(error)})") from error


def _channels_last(path: Path, x: Any) -> Any:
    """The array as (N, H, W, C)."""
    import numpy as np

    if x.dtype != np.uint8:
        raise ValueError(f"{path} holds {x.dtype} {x.shape}: images must be uint8 of values 0..255; convert them first")
    if x.ndim == 3:
        return x[..., None]
    if x.ndim == 4 and x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        return x
    if x.ndim == 4 and x.shape[1] in (1, 3, 4) and x.shape[3] not in (1, 3, 4):
        return np.moveaxis(x, 1, 3)
    raise ValueError(f"{path} holds {x.shape}: save images as (N, H, W), (N, H, W, C) or (N, C, H, W), C 1, 3 or 4")
