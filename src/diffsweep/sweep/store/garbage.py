"""What a folder of runs could do without, and how to free it while others train in it.

Nothing that is finished is ever garbage. Whoever frees a training holds its lease and looks again; the highest lease
file stays behind, for without it two processes that look just then could both take the lease.

Only what carries our mark is deleted: a folder counts as a training if it holds a lease or a status of ours, and of it
go only files that a training writes; a temporary file is known by the name that `files.atomic` gives. No link is
followed.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from diffsweep.files import read_bytes, read_json
from diffsweep.sweep.store.lease import Busy, Lease
from diffsweep.sweep.store.record import Fit

# Every folder below one, with the names of its files.
Tree = Mapping[Path, Sequence[str]]

Kind = Literal["fit", "checkpoint", "temporary", "lease"]

# Seconds. No writer takes that long over one file, and no listing of a shared disk is that old.
HOUR = 3600.0
DAY = 24 * HOUR

# As `files.atomic` calls them: host, process, a random number.
_TEMPORARY = re.compile(r"\..*\.[A-Za-z0-9-]*-\d+-[0-9a-f]+\.tmp(\.\w+)?")
_LEASE = re.compile(r"lease-\d{6,}\.json")

# Files of a training and of its cells, relative to its folder, and folders whose files are all a logger's.
_RECORD = r"config\.yaml|status\.json|error\.txt|samples\.(png|gif|wav)"
_OURS = re.compile(
    rf"{_RECORD}|metrics\.jsonl|checkpoints/[^/]+\.(ckpt|safetensors)|samples/\d+\.png|pictures\.png"
    r"|latents/(index\.json|shard-\d+\.npy)"
    rf"|(cells/[^/]+/)?((csv|tensorboard|wandb)/.+|{_LEASE.pattern}|(.+/)?{_TEMPORARY.pattern})|cells/[^/]+/({_RECORD})"
)
# What a training says that its search has stopped, see `runs.stages`.
_PRUNED = "pruned"


@dataclass(frozen=True)
class Garbage:
    """One thing that could be freed: a file, or the `files` that an abandoned training left in its folder.

    `size` is in bytes.
    """

    kind: Kind
    path: Path
    size: int
    why: str
    files: int = 1


def garbage(runs: str | Path, older_than: float = 7 * DAY) -> list[Garbage]:
    """What could be freed below the folder `runs`; nothing is changed.

    A training without result counts once nothing in its folder has changed for `older_than` seconds and no sweep or
    search below `runs/sweeps` names it; one that a search has pruned counts after an hour, unless a sweep names it.
    Nothing counts in the folder of a training in which anybody is at work.

    Raises ValueError for a plan.json that cannot be read: it might name any training.
    """
    runs = Path(runs)
    planned = _planned(runs)
    found: list[Garbage] = []
    # An autoencoder is a training as a fit is, without cells.
    places = [place for place in (runs / "fits", runs / "autoencoders") if not place.is_symlink()]
    for fit in (Fit(path) for place in places for path in _folders(place)):
        tree = _tree(fit.folder)
        if not _is_training(fit, tree):
            continue
        wait = _patience(fit, older_than)
        if not _finished(fit, tree) and not _planned_in(planned, fit) and _quiet(_paths(tree), wait):
            left = _deletable(fit, tree)
            # Whether a holder elsewhere lives shows only to those who watch; its last sign of life is old, though.
            if left and not _at_work(tree, unless_elsewhere=wait >= HOUR):
                found.append(Garbage("fit", fit.folder, sum(map(_size, left)), _why(fit), len(left)))
            continue
        files = [*_old_leases(tree), *_temporaries(tree)]
        if "last.ckpt" in tree.get(fit.checkpoints, ()) and fit.done:
            checkpoint = fit.checkpoints / "last.ckpt"
            files.append(Garbage("checkpoint", checkpoint, _size(checkpoint), "its training is finished"))
        if files and not _at_work(tree):
            found += files
    for folder in _folders(runs):
        if folder.name not in ("fits", "autoencoders"):
            found += _temporaries(_tree(folder))
    return found


def free(one: Garbage, runs: str | Path, older_than: float = 7 * DAY) -> int:
    """Delete one piece of garbage, unless it has come into use since; returns the number of bytes freed.

    `older_than` as for `garbage`. A training whose holder on another host is silent is watched for a minute first.
    Raises OSError if the disk refuses, and ValueError as `garbage` does.
    """
    runs = Path(runs)
    if any(path.is_symlink() for path in one.path.parents if path.is_relative_to(runs) and path != runs):
        return 0
    if one.kind == "fit":
        return 0 if one.path.is_symlink() else _free_fit(Fit(one.path), runs, older_than)
    if one.kind == "checkpoint":
        fit = Fit(one.path.parent.parent)
        try:
            with Lease(fit.folder).acquire(wait=False):
                return _unlink(one.path) if fit.done else 0
        except Busy:
            return 0
    return _unlink(one.path)


def free_all(found: Sequence[Garbage], runs: str | Path, older_than: float = 7 * DAY) -> Iterator[tuple[int, str]]:
    """`free` of each piece, many at once: (bytes, why the disk refused, if it did), in the order of `found`."""

    def freed(one: Garbage) -> tuple[int, str]:
        try:
            return free(one, runs, older_than), ""
        except OSError as error:
            return 0, f"{one.path}: {error.strerror or error}"

    # Waiting for word from holders on other hosts takes a minute each, but not one after another.
    with ThreadPoolExecutor(32) as pool:
        yield from pool.map(freed, found)


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
        in_use = _planned_in(_planned(runs), fit) or _finished(fit, tree) or _at_work(cells)
        if in_use or not _quiet(_but_leases(fit, tree), _patience(fit, older_than)):
            return 0
        # The checkpoint first: what is left if we are killed is a training that begins anew, not one with gaps.
        for path in sorted(_deletable(fit, tree), key=lambda path: path.parent.name != "checkpoints"):
            if not held.still_held():
                break
            freed += _unlink(path)
        for place in sorted(cells, key=lambda place: -len(place.parts)):
            # A folder that holds anything else stays.
            with suppress(OSError):
                place.rmdir()
    return freed


@dataclass(frozen=True)
class _Planned:
    """The fits that sweeps name, and those that trials of searches have asked for."""

    sweeps: frozenset[str]
    searches: frozenset[str]


def _planned(runs: Path) -> _Planned:
    sweeps = [_fits_of_plan(path, *_stamp(path)) for path in (runs / "sweeps").glob("*/plan.json")]
    searches = [_fits_of_search(path, *_stamp(path)) for path in (runs / "sweeps").glob("*/search.json")]
    return _Planned(frozenset().union(*sweeps), frozenset().union(*searches))


def _planned_in(planned: _Planned, fit: Fit) -> bool:
    """Whether a sweep or a search may still want this training."""
    return fit.signature in planned.sweeps or (fit.signature in planned.searches and not _is_pruned(fit))


@cache
def _fits_of_plan(path: Path, *stamp: int) -> frozenset[str]:
    content = read_json(path) or {"tasks": []}
    try:
        return frozenset(str(task.get(key)) for task in content["tasks"] for key in ("fit", "autoencoder"))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is corrupt ({error!r}) and might name any training: move it away first") from error


# In a journal of Optuna a trial's attribute `result` is the path of the result.json that it asks for.
_RESULT = re.compile(rb'"result": *"(?:[^"]*/)?fits/([^/"]+)/cells/')


def _fits_of_search(path: Path, *stamp: int) -> frozenset[str]:
    content = read_json(path) or {}
    journal = Path(str(content.get("storage") or path.with_name("journal.log")))
    try:
        return frozenset(name.decode(errors="replace") for name in _RESULT.findall(read_bytes(journal)))
    except FileNotFoundError:
        return frozenset()


def _is_training(fit: Fit, tree: Tree) -> bool:
    """Whether the folder carries our mark: a lease, or a status or result that a training has written."""
    return any(map(_LEASE.fullmatch, tree.get(fit.folder, ()))) or "state" in _status(fit) or fit.done


def _status(fit: Fit) -> dict[str, Any]:
    try:
        return fit.status() or {}
    except (ValueError, OSError):
        return {}


def _is_pruned(fit: Fit) -> bool:
    return _status(fit).get("reason") == _PRUNED


def _patience(fit: Fit, older_than: float) -> float:
    """For how many seconds a training must have been quiet; a pruned one never goes on."""
    return min(older_than, HOUR) if _is_pruned(fit) else older_than


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
    status = _status(fit)
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
    # A link to a folder is a name as that of a file, and what it leads to is not looked at.
    return {
        Path(place): [*names, *(name for name in folders if Path(place, name).is_symlink())]
        for place, folders, names in os.walk(folder)
    }


def _deletable(fit: Fit, tree: Tree) -> list[Path]:
    """The files of a training that it has written itself; its own leases are not among them."""
    return [path for path in _but_leases(fit, tree) if _OURS.fullmatch(path.relative_to(fit.folder).as_posix())]


def _but_leases(fit: Fit, tree: Tree) -> list[Path]:
    return [path for path in _paths(tree) if path.parent != fit.folder or not _LEASE.fullmatch(path.name)]


def _paths(tree: Tree) -> list[Path]:
    return [place / name for place, names in tree.items() for name in names]


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(
            path for path in folder.iterdir() if path.is_dir() and not path.is_symlink() and path.name[0] != "."
        )
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
