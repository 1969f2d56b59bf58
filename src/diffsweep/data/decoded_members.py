"""The members of a collection while they are being packed: decoded so far, on the disk, to be gone on from."""

from __future__ import annotations

import mmap
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from diffsweep.files import read_json, write_json

if TYPE_CHECKING:
    import numpy as np

    from diffsweep.data.decoders import Decoded

# Bytes of a file that stay in memory after they were gone through.
RESIDENT = 2**27


class DecodedMembers:
    """Arrays over the members of a collection, in the order of its list, of which the first `done` are decoded.

    Args:
        folder: of the arrays.
        stamp: state of the collection; arrays of another state are not gone on from.
        count: how many members it has.

    Attributes:
        values: as stored, (count, channels, ...); None before the first member is there.
        digests: uint8 (count, 32), the SHA-256 of what is each member's identity.
        alike: whether each has channels that are all alike, bool (count,).
        broken: why members cannot be read, by place in the list.
        done: how many of the list have been looked at.
    """

    def __init__(self, folder: Path, stamp: str, count: int) -> None:
        self.folder, self.stamp, self.count = folder, stamp, count
        self.values: np.ndarray | None = None
        self.broken: dict[int, str] = {}
        self.done = 0
        self._touched = 0
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            self._resume()

    def put(self, place: int, one: Decoded) -> None:
        """Keep a decoded member, whose shape is that of those before. Raises ValueError if the disk is too small."""
        import numpy as np

        if self.values is None:
            self._create(one.values)
        assert self.values is not None
        self.values[place], self.alike[place] = one.values, one.alike
        self.digests[place] = np.frombuffer(one.digest, np.uint8)
        self._touched += one.values.nbytes
        if self._touched > RESIDENT:
            drop_pages(self.values)
            self._touched = 0

    def save(self) -> None:
        """Leave a state that another process can go on from. Raises CannotWriteError."""
        import numpy as np

        for array in (self.values, self.digests, self.alike) if self.values is not None else ():
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
        self.values = None
        for name in ("state.json", *_FILES):
            (self.folder / name).unlink(missing_ok=True)

    def _create(self, first: np.ndarray) -> None:
        import numpy as np

        # These, and once more in the order of their content.
        needed, free = 2 * self.count * first.nbytes, shutil.disk_usage(self.folder).free
        if needed > free:
            raise ValueError(
                f"packing needs {needed / 1e9:,.1f} GB below {self.folder.parent}, and {free / 1e9:,.1f} GB are free: "
                "choose another folder with paths.cache=..."
            )
        kinds = ((first.dtype, first.shape), (np.uint8, (32,)), (np.bool_, ()))
        self.values, self.digests, self.alike = (
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
            self.values, self.digests, self.alike = arrays
        self.broken, self.done = broken, int(known["done"])


def drop_pages(array: np.ndarray) -> None:
    """Give the pages of a mapped file back to the system: what has been gone through need not stay in memory."""
    mapping = getattr(array, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        # Of a shared mapping the file keeps what was written.
        mapping.madvise(mmap.MADV_DONTNEED)


_FILES = ("values.npy", "digests.npy", "alike.npy")
