"""The state of the jobs of a sweep, as far as it can be known: from jobs.json, SLURM's queue and SLURM's accounting."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from diffsweep.sweep.plan.jobs import Job, LaunchRecord
from diffsweep.sweep.status.sweep_state import LauncherState
from diffsweep.sweep.store.lease import Lease

if TYPE_CHECKING:
    from diffsweep.sweep.slurm import QueueEntry

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
_RUNNING = frozenset(["COMPLETING", "RESIZING", "RUNNING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED"])


# Ids of SLURM jobs -> what SLURM knows of them; None while it cannot be asked.
QueryJobs = Callable[[Sequence[str]], "Mapping[str, QueueEntry] | None"]


@dataclass(frozen=True)
class JobState:
    """The state of a job, as far as it can be known.

    "waiting" in a queue, or its launcher lives; "running"; "over"; "gone": no process will run it. `reason` says why it
    waits or how it ended, in SLURM's words; `node` is where it runs; `hint` says why it waits and what to do, if
    somebody must do something.
    """

    state: Literal["waiting", "running", "over", "gone"]
    reason: str = ""
    node: str = ""
    hint: str = ""


_WAITING, _GONE = JobState("waiting"), JobState("gone")


class JobMonitor:
    """Reads the state of the jobs of one sweep, again and again, and asks SLURM only every few seconds.

    Args:
        folder: Of the sweep.
        query_queue: As for `Monitor`.
        query_history: As for `Monitor`.
        poll_seconds: Seconds between two questions to SLURM.
    """

    def __init__(
        self, folder: Path, query_queue: QueryJobs | None, query_history: QueryJobs | None, poll_seconds: float
    ) -> None:
        self.launch: LaunchRecord | None = None
        self.job_of: dict[str, Job] = {}
        self._folder = folder
        self._query_queue = query_queue
        self._query_history = query_history
        self._poll_seconds = poll_seconds
        self._stamp: object = None
        self._queue: Mapping[str, QueueEntry] | None = None
        self._queue_time = self._history_time = -float("inf")
        self._in_queue: set[str] = set()
        self._left_queue: dict[str, float] = {}
        self._end_states: dict[str, str] = {}
        self._unknown_ends: set[str] = set()

    def read_jobs(self) -> bool:
        """Read jobs.json if it has changed; returns whether it had."""
        try:
            status = (self._folder / "jobs.json").stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        except OSError:
            stamp = None
        if stamp == self._stamp:
            return False
        try:
            self.launch = LaunchRecord.read(self._folder)
        except (OSError, ValueError, KeyError, TypeError):
            self.launch = None
        self._stamp = stamp
        self._queue_time = -float("inf")
        self.job_of = {}
        for job in self.launch.jobs if self.launch else ():
            if job.trains:
                self.job_of[job.fit] = job
            elif job.kind == "cells":
                self.job_of |= dict.fromkeys(job.cells, job)
        return True

    def read_queue(self) -> bool:
        """Ask SLURM's queue, if it is time; returns whether it was asked."""
        launch, now = self.launch, time.monotonic()
        if launch is None or launch.kind != "slurm" or launch.ended or now - self._queue_time < self._poll_seconds:
            return False
        ids = [job.id for job in launch.jobs if job.id]
        if not ids:
            return False
        if self._query_queue is None:
            # Only a sweep on SLURM needs it.
            from diffsweep.sweep import slurm

            self._query_queue, self._query_history = slurm.queue, self._query_history or slurm.history
        self._queue_time = now
        self._queue = self._query_queue(ids)
        if self._queue is not None:
            present = {name for name, entry in self._queue.items() if _word(entry) not in _ENDED}
            left = {name: self._left_queue.get(name, now) for name in self._in_queue - present}
            self._in_queue |= present
            self._left_queue = left
        return True

    def read_history(self) -> bool:
        """Ask SLURM's accounting how jobs ended whose end `of` did not know, if it is time; whether it says."""
        now = time.monotonic()
        wanted, self._unknown_ends = sorted(self._unknown_ends - set(self._end_states)), set()
        if not wanted or now - self._history_time < self._poll_seconds:
            return False
        if self._query_history is None:
            from diffsweep.sweep import slurm

            self._query_history = slurm.history
        self._history_time = now
        ends = {name: _word(entry) for name, entry in (self._query_history(wanted) or {}).items()}
        # Accounting lags behind: what still runs there has not been written down yet.
        ends = {name: word for name, word in ends.items() if word in _ENDED}
        self._end_states |= ends
        return bool(ends)

    @property
    def launch_time(self) -> str:
        """When the sweep was launch, as ISO 8601 text; empty if it was not."""
        launcher = self.launch.launcher if self.launch else None
        return launcher.time if launcher is not None else ""

    def is_running(self, slurm_job: str) -> bool | None:
        """Whether a SLURM job of this sweep runs; None of others, and while SLURM cannot be asked."""
        if self._queue is None or self.launch is None or all(job.id != slurm_job for job in self.launch.jobs):
            return None
        entry = self._queue.get(slurm_job)
        return entry is not None and _word(entry) in _RUNNING

    def launcher(self, complete: bool, quiet: float) -> LauncherState:
        """The state of the launcher; `complete`: all is done; `quiet`: seconds since any process was seen at work."""
        launch, now = self.launch, time.monotonic()
        if launch is None:
            return "finished" if complete else "planned"
        if launch.ended:
            return "finished"
        alive = launch.launcher.alive() if launch.launcher is not None else False
        if alive:
            return "live"
        if launch.kind == "slurm":
            entries = (self._queue or {}).values()
            queued = self._queue is None or any(_word(entry) not in _ENDED for entry in entries)
            if not complete and (queued or any(now - left < self._poll_seconds for left in self._left_queue.values())):
                return "detached"
        if complete:
            return "finished"
        if alive is None:
            return "live" if quiet < Lease.patience else "elsewhere"
        return "interrupted"

    def of(self, job: Job | None, launcher: LauncherState) -> JobState:
        """The state of `job`, whose launcher is in state `launcher`; for `read_history`, notes an unknown end."""
        launch, now = self.launch, time.monotonic()
        if job is None or launch is None:
            return _GONE
        if launch.kind == "local" or not job.id:
            return _WAITING if launcher == "live" else _GONE
        entry = None
        if not launch.ended:
            if self._queue is None:
                return JobState("waiting", "SLURM cannot be asked from here")
            entry = self._queue.get(job.id)
            word = _word(entry) if entry else ""
            reason = entry.reason or "" if entry else ""
            if word in _RUNNING:
                return JobState("running", node=entry.node or "" if entry else "")
            if entry is not None and word not in _ENDED:
                from diffsweep.sweep import slurm

                hint = slurm.waiting_reason(reason, job.resources_key)
                return JobState("waiting", reason if reason != "None" else "", hint=hint)
            # Its last files may need a moment to be seen from here.
            if now - self._left_queue.get(job.id, -float("inf")) < self._poll_seconds:
                return JobState("waiting", "its job has just ended")
        word = _word(entry) if entry else self._end_states.get(job.id, "")
        if not word:
            self._unknown_ends.add(job.id)
        return JobState("over", word)


def _word(entry: QueueEntry) -> str:
    # `CANCELLED by 1000`, `CANCELLED+`.
    return entry.state.split()[0].rstrip("+") if entry.state.strip() else ""
