"""Manifests: which files and pictures a collection had when it was packed, to say what has changed since."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from diffsweep.files import atomic


@dataclass(frozen=True)
class Manifest:
    """A file of rows in JSON: `["file", name, size, time in ns]`, and `["picture", name, hash of its pixels]`.

    Attributes:
        path: of the file, gzip.
    """

    path: Path

    def changes(self, hashes: Mapping[str, str]) -> str:
        """What pictures of these hashes by name have that the manifest has not: "2 added, 1 replaced"; "" if nothing.

        Also if there is no manifest.
        """
        before = self._hashes()
        if before is None:
            return ""
        counts = {
            "added": len(hashes.keys() - before.keys()),
            "removed": len(before.keys() - hashes.keys()),
            "replaced": sum(before.get(name, digest) != digest for name, digest in hashes.items()),
        }
        return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)

    def write(self, files: Iterable[tuple[str, int, int]], hashes: Mapping[str, str]) -> None:
        """Put these in its place. Raises CannotWriteError."""
        with atomic(self.path) as temporary, gzip.open(temporary, "wt", compresslevel=1) as stream:
            for row in files:
                stream.write(json.dumps(["file", *row]) + "\n")
            for row in hashes.items():
                stream.write(json.dumps(["picture", *row]) + "\n")

    def _hashes(self) -> dict[str, str] | None:
        try:
            with gzip.open(self.path, "rt") as stream:
                rows = [json.loads(line) for line in stream]
            return {name: digest for kind, name, digest, *_ in rows if kind == "picture"}
        except (OSError, EOFError, ValueError, TypeError, zlib.error):
            # It is for a message only: one that is damaged is as none.
            return None
