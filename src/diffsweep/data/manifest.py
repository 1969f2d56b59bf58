"""Manifests: which members a collection had when it was packed, to say what has changed since."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffsweep.files import atomic

if TYPE_CHECKING:
    import numpy as np


class Manifest:
    """A file of two numbers for each member: 64 bits of the hash of its name, and of the hash of its content.

    Args:
        path: of the file, npy: uint64 (N, 2), sorted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def replace(self, names: Sequence[str], digests: np.ndarray) -> str:
        """Put these members in its place, and say what they are beside those before.

        Args:
            names: of the members.
            digests: of their content, uint8 (N, 32).

        Returns:
            As "2 added, 1 replaced"; "" if nothing has changed, or nothing is known.

        Raises:
            CannotWriteError: if it cannot be written.
        """
        import numpy as np

        hashes = (hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:8] for name in names)
        now = np.empty((len(names), 2), dtype=np.uint64)
        now[:, 0] = np.frombuffer(b"".join(hashes), dtype=np.uint64)
        now[:, 1] = np.ascontiguousarray(digests[:, :8]).view(np.uint64)[:, 0]
        now = now[np.unique(now[:, 0], return_index=True)[1]]
        before = self._read()
        with atomic(self.path) as temporary, temporary.open("wb") as stream:
            np.save(stream, now)
        if before is None:
            return ""
        _, here, there = np.intersect1d(now[:, 0], before[:, 0], return_indices=True)
        replaced = int((now[here, 1] != before[there, 1]).sum())
        counts = {"added": len(now) - len(here), "removed": len(before) - len(there), "replaced": replaced}
        return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)

    def _read(self) -> np.ndarray | None:
        import numpy as np

        try:
            found = np.load(self.path)
        except (OSError, EOFError, ValueError):
            # It is for a message only: one that is damaged is as none.
            return None
        return found if found.ndim == 2 and found.shape[1] == 2 and found.dtype == np.uint64 else None
