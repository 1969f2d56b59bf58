"""What lies in the folder of a fit or cell that is not done: who is at it, what was said of it last, why it failed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from diffsweep.sweep.store.fast_read import names, read_object
from diffsweep.sweep.store.lease import Lease
from diffsweep.sweep.store.process import Process

# A disk that stamps two changes alike does so within this many seconds.
_SETTLED = 2.0


@dataclass(frozen=True)
class Evidence:
    """What a folder shows.

    Attributes:
        holder: who holds its lease and, as far as can be told, lives.
        status: its status.json.
        failure: why it failed, in one line; empty if it did not.
        failed_at: when, as ISO 8601 text.
        failed_job: the SLURM job that it failed in, if it was one.
    """

    holder: Process | None = None
    status: Mapping[str, Any] | None = None
    failure: str = ""
    failed_at: str = ""
    failed_job: str | None = None

    @property
    def progress(self) -> dict[str, Any]:
        """step, steps and loss; None each if not known."""
        status = self.status or {}
        return {key: number(status.get(key)) for key in ("step", "steps", "loss")}


NOTHING = Evidence()


class Folders:
    """Reads folders again and again, those that are quiet only once.

    Args:
        at_work: whether a SLURM job runs, by its name; None if that is not known here.
    """

    def __init__(self, at_work: Callable[[str], bool | None]) -> None:
        self._at_work = at_work
        self._known: dict[str, tuple[int, float, float, Evidence]] = {}
        self._signs: dict[str, tuple[int, float]] = {}

    def read(self, folder: str) -> Evidence:
        """What `folder` shows; unreadable files count as absent."""
        now = time.monotonic()
        try:
            stamp = os.stat(folder).st_mtime_ns  # noqa: PTH116 - strings: a Path for each of 10,000 cells costs a second
        except OSError:
            return NOTHING
        known = self._known.get(folder)
        since = known[1] if known is not None and known[0] == stamp else now
        # Every new state of a record is a new file in its folder; signs of life are not.
        if known is not None and known[0] == stamp and known[2] - since > _SETTLED and known[3].holder is None:
            return known[3]
        found = self._read(folder)
        self._known[folder] = (stamp, since, now, found)
        return found

    def _read(self, folder: str) -> Evidence:
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
            # One from before the last word of its process is about an earlier attempt.
            if status is None or written >= _stamp(Path(folder, "status.json")):
                failure = _first_line(error)
                failed_at = datetime.fromtimestamp(written / 1e9, timezone.utc).isoformat(timespec="seconds")
        return Evidence(holder, status, failure, failed_at, failed_job)

    def _holder(self, folder: str, leases: Sequence[str]) -> Process | None:
        """Who holds the record's lease and, as far as can be told, lives."""
        lease = Lease(folder)
        holder = lease.holder() if leases else None
        if holder is None or holder.alive():
            return holder
        at_work = self._at_work(holder.slurm_job) if holder.slurm_job else None
        if at_work is not None:
            return holder if at_work else None
        stamp = _stamp(Path(folder, max(leases)))
        now = time.monotonic()
        seen = self._signs.get(folder)
        if seen is None:
            # The clocks of two hosts, for want of better: a second look knows whether the stamp moves.
            age = abs(time.time() - stamp / 1e9)
            self._signs[folder] = (stamp, now - age)
        elif seen[0] != stamp:
            self._signs[folder] = (stamp, now)
        return holder if now - self._signs[folder][1] < lease.patience else None


def number(value: object) -> Any:
    """`value` if it is a number, else None."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _first_line(path: Path) -> str:
    try:
        with path.open(errors="replace") as lines:
            return lines.readline().strip()
    except OSError:
        return ""


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
