"""The pictures of a collection while they are being packed: decoded so far, on the disk, to be gone on from."""

from __future__ import annotations

import math
import mmap
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from diffsweep.files import read_json, write_json

if TYPE_CHECKING:
    import numpy as np


class DifferentSizesError(ValueError):
    """A picture that has not the size of those before; the message gives both."""


class DecodedPictures:
    """Arrays over the pictures of a collection, in the order of its list, of which the first `done` are decoded.

    Args:
        folder: of the arrays.
        stamp: state of the collection; arrays of another state are not gone on from.
        count: how many pictures it has.

    Attributes:
        pixels: uint8 (count, C, H, W); None before the first picture is there.
        digests: uint8 (count, 32), the SHA-256 of what is each picture's identity.
        grey: whether each has no colours, bool (count,).
        broken: why pictures cannot be read, by place in the list.
        done: how many of the list have been looked at.
    """

    def __init__(self, folder: Path, stamp: str, count: int) -> None:
        self.folder, self.stamp, self.count = folder, stamp, count
        self.pixels: np.ndarray | None = None
        self.broken: dict[int, str] = {}
        self.done = 0
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            self._resume()

    def put(self, place: int, pixels: np.ndarray, digest: bytes, *, grey: bool) -> None:
        """Keep a decoded picture. Raises DifferentSizesError, or ValueError if the disk is too small."""
        import numpy as np

        if self.pixels is None:
            self._create(pixels.shape)
        assert self.pixels is not None
        if pixels.shape != self.pixels.shape[1:]:
            here, there = (f"{shape[-1]}x{shape[-2]}" for shape in (pixels.shape, self.pixels.shape))
            raise DifferentSizesError(f"pictures of different sizes, as {there} and {here}")
        self.pixels[place], self.grey[place] = pixels, grey
        self.digests[place] = np.frombuffer(digest, np.uint8)

    def save(self) -> None:
        """Leave a state that another process can go on from. Raises CannotWriteError."""
        import numpy as np

        for array in (self.pixels, self.digests, self.grey) if self.pixels is not None else ():
            assert isinstance(array, np.memmap)
            array.flush()
            drop_pages(array)
        broken = {str(place): reason for place, reason in self.broken.items()}
        write_json(
            self.folder / "state.json",
            {"stamp": self.stamp, "count": self.count, "done": self.done, "broken": broken},
        )

    def remove(self) -> None:
        """Remove the files."""
        self.pixels = None
        for name in ("state.json", *_FILES):
            (self.folder / name).unlink(missing_ok=True)

    def _create(self, shape: tuple[int, ...]) -> None:
        import numpy as np

        # These, and once more in the order of their content.
        needed, free = 2 * self.count * math.prod(shape), shutil.disk_usage(self.folder).free
        if needed > free:
            raise ValueError(
                f"packing needs {needed / 1e9:,.1f} GB below {self.folder.parent}, and {free / 1e9:,.1f} GB are free: "
                "choose another folder with paths.cache=..."
            )
        kinds = ((np.uint8, shape), (np.uint8, (32,)), (np.bool_, ()))
        self.pixels, self.digests, self.grey = (
            np.lib.format.open_memmap(self.folder / name, mode="w+", dtype=kind, shape=(self.count, *rest))
            for name, (kind, rest) in zip(_FILES, kinds, strict=True)
        )

    def _resume(self) -> None:
        import numpy as np

        known = read_json(self.folder / "state.json") or {}
        if (known["stamp"], known["count"]) != (self.stamp, self.count):
            return
        broken = {int(place): str(reason) for place, reason in known["broken"].items()}
        if len(broken) < known["done"]:
            arrays = [np.load(self.folder / name, mmap_mode="r+") for name in _FILES]
            if any(len(array) != self.count for array in arrays):
                return
            self.pixels, self.digests, self.grey = arrays
        self.broken, self.done = broken, int(known["done"])


def drop_pages(array: np.ndarray) -> None:
    """Give the pages of a mapped file back to the system: what has been gone through need not stay in memory."""
    mapping = getattr(array, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        # Of a shared mapping the file keeps what was written.
        mapping.madvise(mmap.MADV_DONTNEED)


_FILES = ("pixels.npy", "digests.npy", "grey.npy")
