"""What a folder of runs could do without, and how to free it while others train in it.

Nothing that is finished is ever garbage. Whoever frees a training holds its lease and looks again; the highest lease
file stays behind, for without it two processes that look just then could both take the lease.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from diffsweep.files import read_json
from diffsweep.sweep.store.lease import Busy, Lease
from diffsweep.sweep.store.record import Fit

# Every folder below one, with the names of its files.
Tree = Mapping[Path, Sequence[str]]

Kind = Literal["fit", "checkpoint", "temporary", "lease"]

# Seconds. No writer takes that long over one file, and no listing of a shared disk is that old.
HOUR = 3600.0
DAY = 24 * HOUR

_TEMPORARY = re.compile(r"\..+\.tmp(\.\w+)?")
_LEASE = re.compile(r"lease-\d{6,}\.json")


@dataclass(frozen=True)
class Garbage:
    """One thing that could be freed: a file, or what an abandoned training left in its folder. `size` in bytes."""

    kind: Kind
    path: Path
    size: int
    why: str


def garbage(runs: str | Path, older_than: float = 7 * DAY) -> list[Garbage]:
    """What could be freed below the folder `runs`; nothing is changed.

    A training without result counts once nothing in its folder has changed for `older_than` seconds and no plan.json
    below `runs/sweeps` names it. Nothing counts in the folder of a training in which anybody is at work.

    Raises ValueError for a plan.json that cannot be read: it might name any training.
    """
    runs = Path(runs)
    planned = _planned(runs)
    found: list[Garbage] = []
    for fit in (Fit(path) for path in _folders(runs / "fits")):
        tree = _tree(fit.folder)
        if not _finished(fit, tree) and fit.signature not in planned and _quiet(_paths(tree), older_than):
            left = _but_leases(fit, tree)
            # Whether a holder elsewhere lives shows only to those who watch; its last sign of life is old, though.
            if left and not _at_work(tree, unless_elsewhere=older_than >= HOUR):
                found.append(Garbage("fit", fit.folder, sum(map(_size, left)), _why(fit)))
            continue
        files = [*_old_leases(tree), *_temporaries(tree)]
        if "last.ckpt" in tree.get(fit.checkpoints, ()) and fit.done:
            checkpoint = fit.checkpoints / "last.ckpt"
            files.append(Garbage("checkpoint", checkpoint, _size(checkpoint), "its training is finished"))
        if files and not _at_work(tree):
            found += files
    for folder in _folders(runs):
        if folder.name != "fits":
            found += _temporaries(_tree(folder))
    return found


def free(one: Garbage, runs: str | Path, older_than: float = 7 * DAY) -> int:
    """Delete one piece of garbage, unless it has come into use since; returns the number of bytes freed.

    `older_than` as for `garbage`. A training whose holder on another host is silent is watched for a minute first.
    Raises OSError if the disk refuses, and ValueError as `garbage` does.
    """
    if one.kind == "fit":
        return _free_fit(Fit(one.path), Path(runs), older_than)
    if one.kind == "checkpoint":
        fit = Fit(one.path.parent.parent)
        try:
            with Lease(fit.folder).acquire(wait=False):
                return _unlink(one.path) if fit.done else 0
        except Busy:
            return 0
    return _unlink(one.path)


def _free_fit(fit: Fit, runs: Path, older_than: float) -> int:
    lease = Lease(fit.folder)
    holder = lease.holder()
    # Time to find out that a holder elsewhere is dead, by watching it.
    wait = lease.patience + 2 * lease.heartbeat if holder and holder.alive() is None else False
    try:
        held = lease.acquire(wait=wait)
    except Busy:
        return 0
    freed = 0
    with held:
        tree = _tree(fit.folder)
        cells = {place: names for place, names in tree.items() if place != fit.folder}
        in_use = fit.signature in _planned(runs) or _finished(fit, tree) or _at_work(cells)
        if in_use or not _quiet(_but_leases(fit, tree), older_than):
            return 0
        # The checkpoint first: what is left if we are killed is a training that begins anew, not one with gaps.
        for path in sorted(fit.folder.iterdir(), key=lambda path: path.name != "checkpoints"):
            if _LEASE.fullmatch(path.name):
                continue
            if not held.still_held():
                break
            if path.is_dir() and not path.is_symlink():
                freed += sum(map(_size, _paths(_tree(path))))
                shutil.rmtree(path)
            else:
                freed += _unlink(path)
    return freed


def _planned(runs: Path) -> set[str]:
    """The fits that any sweep names."""
    paths = list((runs / "sweeps").glob("*/plan.json"))
    return set().union(*(_fits_of(path, *_stamp(path)) for path in paths))


@cache
def _fits_of(path: Path, *stamp: int) -> frozenset[str]:
    content = read_json(path) or {"tasks": []}
    try:
        return frozenset(str(task["fit"]) for task in content["tasks"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is corrupt ({error!r}) and might name any training: delete it first") from error


def _finished(fit: Fit, tree: Tree) -> bool:
    # A file that is there but cannot be read counts: it may be the record of something finished.
    return fit.done_file.name in tree.get(fit.folder, ()) or any("result.json" in names for names in tree.values())


def _at_work(tree: Tree, unless_elsewhere: bool = False) -> bool:
    """Whether anybody holds a lease in any of the folders, as far as one look tells."""
    for place, names in tree.items():
        if any(map(_LEASE.fullmatch, names)):
            holder = Lease(place).holder()
            if holder is not None and not (unless_elsewhere and holder.alive() is None):
                return True
    return False


def _why(fit: Fit) -> str:
    try:
        status = fit.status() or {}
    except ValueError:
        status = {}
    reason = fit.error() or status.get("reason")
    step, steps = status.get("step"), status.get("steps")
    reached = f" at step {step} of {steps}" if step is not None and steps is not None else ""
    return f"stopped{reached}{f': {reason}' if reason else ''}"


def _old_leases(tree: Tree) -> Iterator[Garbage]:
    for place, names in tree.items():
        leases = sorted((name for name in names if _LEASE.fullmatch(name)), key=lambda name: (len(name), name))
        for path in (place / name for name in leases[:-1]):
            if _age(path) > HOUR:
                yield Garbage("lease", path, _size(path), "a later one counts")


def _temporaries(tree: Tree) -> Iterator[Garbage]:
    for path in (place / name for place, names in tree.items() for name in names if _TEMPORARY.fullmatch(name)):
        if _age(path) > HOUR:
            yield Garbage("temporary", path, _size(path), "its writer was killed")


def _tree(folder: Path) -> Tree:
    return {Path(place): names for place, _, names in os.walk(folder)}


def _but_leases(fit: Fit, tree: Tree) -> list[Path]:
    return [path for path in _paths(tree) if path.parent != fit.folder or not _LEASE.fullmatch(path.name)]


def _paths(tree: Tree) -> list[Path]:
    return [place / name for place, names in tree.items() for name in names]


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    except OSError:
        return []


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.lstat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _quiet(paths: Sequence[Path], seconds: float) -> bool:
    """Whether none of the files was changed in the last `seconds`."""
    return all(_age(path) >= seconds for path in paths)


def _age(path: Path) -> float:
    """Seconds since the file was last changed; what has just gone is of no age."""
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _unlink(path: Path) -> int:
    size = _size(path)
    try:
        path.unlink()
    except FileNotFoundError:
        return 0
    return size
