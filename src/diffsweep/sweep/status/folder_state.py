"""The state of the folder of an unfinished fit or cell: its lease's holder, its last status, why it failed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from diffsweep.sweep.store.blocked import is_blocked
from diffsweep.sweep.store.fast_read import names, read_fast, read_object
from diffsweep.sweep.store.lease import Lease
from diffsweep.sweep.store.process import Process

# A disk that stamps two changes alike does so within this many seconds.
_SETTLED = 2.0


@dataclass(frozen=True)
class FolderState:
    """The state of the folder of an unfinished fit or cell.

    Attributes:
        holder: The process that holds its lease and, as far as can be told, lives.
        status: Its status.json.
        failure: Why it failed, in one line; empty if it did not.
        failed_at: When it failed, as ISO 8601 text.
        failed_job: The SLURM job in which it failed, if it was one.
        blocked: Whether it was not run because its fit had failed.
    """

    holder: Process | None = None
    status: Mapping[str, Any] | None = None
    failure: str = ""
    failed_at: str = ""
    failed_job: str | None = None
    blocked: bool = False

    @property
    def progress(self) -> dict[str, Any]:
        """step, steps and loss; None each if not known."""
        status = self.status or {}
        return {key: number(status.get(key)) for key in ("step", "steps", "loss")}


UNTOUCHED = FolderState()


class FolderReader:
    """Reads the state of many folders again and again; a folder that does not change is read only once.

    Args:
        is_running: Whether a SLURM job runs, by its name; None if that is not known here.
    """

    def __init__(self, is_running: Callable[[str], bool | None]) -> None:
        self._is_running = is_running
        # Folder -> its time stamp, since when it has that stamp, when it was read, its state then.
        self._states: dict[str, tuple[int, float, float, FolderState]] = {}
        # Folder -> the last time stamp of its lease, and when that was first seen.
        self._heartbeats: dict[str, tuple[int, float]] = {}

    def read(self, folder: str) -> FolderState:
        """The state of `folder`; files that cannot be read count as absent."""
        now = time.monotonic()
        try:
            stamp = os.stat(folder).st_mtime_ns  # noqa: PTH116 - strings: a Path for each of 10,000 cells costs a second
        except OSError:
            return UNTOUCHED
        known = self._states.get(folder)
        since = known[1] if known is not None and known[0] == stamp else now
        # Every new state of a record is a new file in its folder; heartbeats of a lease are not.
        if known is not None and known[0] == stamp and known[2] - since > _SETTLED and known[3].holder is None:
            return known[3]
        found = self._read(folder)
        self._states[folder] = (stamp, since, now, found)
        return found

    def _read(self, folder: str) -> FolderState:
        there = names(folder)
        status = read_object(f"{folder}/status.json") if "status.json" in there else None
        holder = self._holder(folder, [name for name in there if name.startswith("lease-")])
        failure = failed_at = ""
        failed_job = None
        error = Path(folder, "error.txt")
        if status is not None and status.get("state") == "failed":
            failure = str(status.get("reason") or "") or _first_line(error) or "no reason was recorded"
            failed_at, failed_job = str(status.get("time", "")), status.get("slurm_job")
        elif "error.txt" in there:
            written = _stamp(error)
            # An error that is older than the status is about an earlier attempt.
            if status is None or written >= _stamp(Path(folder, "status.json")):
                failure = _first_line(error)
                failed_at = datetime.fromtimestamp(written / 1e9, timezone.utc).isoformat(timespec="seconds")
        return FolderState(holder, status, failure, failed_at, failed_job, is_blocked(status, failure))

    def _holder(self, folder: str, leases: Sequence[str]) -> Process | None:
        """The process that holds the folder's lease and, as far as can be told, lives."""
        lease = Lease(folder)
        holder = lease.holder() if leases else None
        if holder is None or holder.alive():
            return holder
        running = self._is_running(holder.slurm_job) if holder.slurm_job else None
        if running is not None:
            return holder if running else None
        stamp = _stamp(Path(folder, max(leases)))
        now = time.monotonic()
        seen = self._heartbeats.get(folder)
        if seen is None:
            # Compares the clocks of two hosts: from the second call on it is known whether the stamp moves.
            age = abs(time.time() - stamp / 1e9)
            self._heartbeats[folder] = (stamp, now - age)
        elif seen[0] != stamp:
            self._heartbeats[folder] = (stamp, now)
        return holder if now - self._heartbeats[folder][1] < lease.patience else None


def number(value: object) -> Any:
    """`value` if it is a number, else None."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _first_line(path: Path) -> str:
    try:
        return read_fast(str(path))[0].partition(b"\n")[0].decode(errors="replace").strip()
    except OSError:
        return ""


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
