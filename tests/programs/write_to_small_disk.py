"""Writes in three ways more than fits on the disk of a folder; prints what is said of each, and the files left.

Usage: `write_to_small_disk.py FOLDER MODE`; with the mode `ro` the disk is made read-only before.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from diffsweep.sweep.store.record import CannotWriteError, Metrics, atomic, write_atomic

folder = Path(sys.argv[1])
old = folder / "fits" / "f0" / "done.json"
old.parent.mkdir(parents=True)
old.write_text("old")
if sys.argv[2] == "ro":
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def plain(path: Path) -> None:
    write_atomic(path, bytes(200_000))


def as_torch_does(path: Path) -> None:
    with atomic(path) as temporary:
        try:
            temporary.write_bytes(bytes(200_000))
        except OSError:
            raise RuntimeError("unexpected pos 64 vs 0") from None


def metrics(path: Path) -> None:
    with Metrics(path.with_name("metrics.jsonl")) as lines:
        for step in range(5000):
            lines.write(step, loss=1.0, text="x" * 50)


for write in (plain, as_torch_does, metrics):
    try:
        write(old)
        print("written")
    except CannotWriteError as error:
        print(error)
assert old.read_text() == "old"
print(sorted(path.name for path in old.parent.iterdir()))
