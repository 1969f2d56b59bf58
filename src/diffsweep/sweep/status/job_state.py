"""What can still be hoped for from the jobs of a sweep: its launcher's word, SLURM's queue, and SLURM's memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from diffsweep.sweep.plan.jobs import Job, Launched
from diffsweep.sweep.status.sweep_state import Launcher
from diffsweep.sweep.store.lease import Lease

_ENDED = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    ]
)
_AT_WORK = frozenset(["COMPLETING", "RESIZING", "RUNNING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED"])


class Entry(Protocol):
    """One job as SLURM tells it: `state` in its words (PENDING, OUT_OF_MEMORY), why it waits, where it runs."""

    @property
    def state(self) -> str: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def node(self) -> str | None: ...


Ask = Callable[[Sequence[str]], Mapping[str, Entry] | None]


@dataclass(frozen=True)
class Outlook:
    """What can still be hoped for from a job."""

    state: Literal["waiting", "running", "over", "gone"]
    reason: str = ""
    node: str = ""


_WAITING, _GONE = Outlook("waiting"), Outlook("gone")


class Outlooks:
    """Asks about the jobs of one sweep, SLURM no more often than is polite.

    Args:
        folder: of the sweep.
        queue: as for `Watch`.
        history: as for `Watch`.
        every: seconds between two questions.
    """

    def __init__(self, folder: Path, queue: Ask | None, history: Ask | None, every: float) -> None:
        self.launched: Launched | None = None
        self.job_of: dict[str, Job] = {}
        self._folder = folder
        self._ask_queue = queue
        self._ask_history = history
        self._every = every
        self._stamp: object = None
        self._queue: Mapping[str, Entry] | None = None
        self._asked = self._asked_history = -float("inf")
        self._in_queue: set[str] = set()
        self._left_queue: dict[str, float] = {}
        self._words: dict[str, str] = {}
        self._wanted: set[str] = set()

    def read_jobs(self) -> bool:
        """Read jobs.json if it has changed since; whether it had."""
        try:
            status = (self._folder / "jobs.json").stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        except OSError:
            stamp = None
        if stamp == self._stamp:
            return False
        try:
            self.launched = Launched.read(self._folder)
        except (OSError, ValueError, KeyError, TypeError):
            self.launched = None
        self._stamp = stamp
        self._asked = -float("inf")
        self.job_of = {}
        for job in self.launched.jobs if self.launched else ():
            if job.kind == "fit":
                self.job_of[job.fit] = job
            elif job.kind == "cells":
                self.job_of |= dict.fromkeys(job.cells, job)
        return True

    def read_queue(self) -> bool:
        """Ask for the jobs of what is not done, if it is time; whether it was."""
        launched, now = self.launched, time.monotonic()
        if launched is None or launched.kind != "slurm" or launched.ended or now - self._asked < self._every:
            return False
        ids = [job.id for job in launched.jobs if job.id]
        if not ids:
            return False
        if self._ask_queue is None:
            from diffsweep.sweep import slurm

            self._ask_queue, self._ask_history = slurm.queue, self._ask_history or slurm.history
        self._asked = now
        self._queue = self._ask_queue(ids)
        if self._queue is not None:
            present = {name for name, entry in self._queue.items() if _word(entry) not in _ENDED}
            left = {name: self._left_queue.get(name, now) for name in self._in_queue - present}
            self._in_queue |= present
            self._left_queue = left
        return True

    def read_history(self) -> bool:
        """Ask how the jobs of which `of` did not know have ended, if it is time; whether there is news."""
        now = time.monotonic()
        wanted, self._wanted = sorted(self._wanted - set(self._words)), set()
        if not wanted or now - self._asked_history < self._every:
            return False
        if self._ask_history is None:
            from diffsweep.sweep import slurm

            self._ask_history = slurm.history
        self._asked_history = now
        told = {name: _word(entry) for name, entry in (self._ask_history(wanted) or {}).items()}
        # Accounting lags behind: what still runs there has not been written down yet.
        told = {name: word for name, word in told.items() if word in _ENDED}
        self._words |= told
        return bool(told)

    @property
    def launch_time(self) -> str:
        """When the sweep was launched, as ISO 8601 text; empty if it was not."""
        launcher = self.launched.launcher if self.launched else None
        return launcher.time if launcher is not None else ""

    def at_work(self, slurm_job: str) -> bool | None:
        """Whether a SLURM job of this sweep runs; None of others, and while SLURM cannot be asked."""
        if self._queue is None or self.launched is None or all(job.id != slurm_job for job in self.launched.jobs):
            return None
        entry = self._queue.get(slurm_job)
        return entry is not None and _word(entry) in _AT_WORK

    def launcher(self, complete: bool, quiet: float) -> Launcher:
        """How the launcher stands, if all is done or not, and nobody has been at work for `quiet` seconds."""
        launched, now = self.launched, time.monotonic()
        if launched is None:
            return "finished" if complete else "planned"
        if launched.ended:
            return "finished"
        alive = launched.launcher.alive() if launched.launcher is not None else False
        if alive:
            return "live"
        if launched.kind == "slurm":
            entries = (self._queue or {}).values()
            queued = self._queue is None or any(_word(entry) not in _ENDED for entry in entries)
            if not complete and (queued or any(now - left < self._every for left in self._left_queue.values())):
                return "detached"
        if complete:
            return "finished"
        if alive is None:
            return "live" if quiet < Lease.patience else "elsewhere"
        return "interrupted"

    def of(self, job: Job | None, launcher: Launcher) -> Outlook:
        """What can be hoped for from `job`, with its launcher as `launcher` says. What is not known is remembered."""
        launched, now = self.launched, time.monotonic()
        if job is None or launched is None:
            return _GONE
        if launched.kind == "local" or not job.id:
            return _WAITING if launcher == "live" else _GONE
        entry = None
        if not launched.ended:
            if self._queue is None:
                return Outlook("waiting", "SLURM cannot be asked from here")
            entry = self._queue.get(job.id)
            word = _word(entry) if entry else ""
            reason = entry.reason or "" if entry else ""
            if word in _AT_WORK:
                return Outlook("running", node=entry.node or "" if entry else "")
            if entry is not None and word not in _ENDED:
                return Outlook("waiting", reason if reason != "None" else "")
            # Its last files may need a moment to be seen from here.
            if now - self._left_queue.get(job.id, -float("inf")) < self._every:
                return Outlook("waiting", "its job has just ended")
        word = _word(entry) if entry else self._words.get(job.id, "")
        if not word:
            self._wanted.add(job.id)
        return Outlook("over", word)


def _word(entry: Entry) -> str:
    # `CANCELLED by 1000`, `CANCELLED+`.
    return entry.state.split()[0].rstrip("+") if entry.state.strip() else ""
