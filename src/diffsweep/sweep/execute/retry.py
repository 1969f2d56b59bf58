"""The retry policy of a sweep: what is run again of a job whose process has ended, and what is recorded as failed.

A process that was killed (by hand, for want of memory) costs at most the cell that it was at: that one is tried again,
a bounded number of times, then recorded as failed; the cells behind it go on. An interrupted job (SIGTERM, Ctrl-C) is
no failure: whoever interrupted it wants it to stop.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from diffsweep.messages import say
from diffsweep.sweep.plan.jobs import Job
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.store.lease import Lease
from diffsweep.sweep.store.record import CannotWriteError, Record

_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
INTERRUPTED = frozenset([*(-number for number in _STOPS), *(128 + number for number in _STOPS)])


class RetryPolicy:
    """Decides what is run again of the jobs of one sweep, or of one SLURM job.

    `retries`: how often a fit or cell whose process was killed is tried again. Raises ValueError below 0.
    """

    def __init__(self, plan: Plan, retries: int) -> None:
        if retries < 0:
            raise ValueError(f"retries={retries} must be 0 or more")
        self.plan = plan
        self.retries = retries
        self._attempts: Counter[str] = Counter()

    def remaining_job(self, job: Job, code: int, finished_cells: Mapping[str, bool]) -> Job | None:
        """The job that runs the rest of `job`, None if there is no rest.

        `code` is the exit code of its process, negative for the signal that killed it; `finished_cells` says which of
        its cells the process reported as over, and whether they are done.
        """
        if code in INTERRUPTED:
            return None
        if job.trains:
            record = self.plan.training(job.fit)
            if record.done:
                return None
            if code < 0 and self._may_retry(job.fit):
                # With another cell's config, if there is one: it trains the same fit, but may not kill its process.
                return replace(job, cells=(*job.cells[1:], job.cells[0]))
            # Another process may have taken it over; that one records how it ends.
            if (code <= 0 or record.error() is None) and Lease(record.folder).holder() is None:
                _record_failure(record, code)
            return None
        left = tuple(cell for cell in job.cells if cell not in finished_cells)
        if not left:
            return None
        if code < 0 and self._may_retry(left[0]):
            return replace(job, cells=left)
        record = self.plan.cell(left[0])
        if not record.done and Lease(record.folder).holder() is None:
            _record_failure(record, code)
        return replace(job, cells=left[1:]) if left[1:] else None

    def _may_retry(self, signature: str) -> bool:
        self._attempts[signature] += 1
        return self._attempts[signature] <= self.retries


def exit_reason(code: int) -> str:
    """The meaning of an exit code in words, such as `killed by SIGKILL (out of memory, or kill -9)`."""
    if code >= 0:
        return f"its process ended with exit code {code}: the log says why"
    with suppress(ValueError):
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory, or kill -9)" if name == "SIGKILL" else "")
    return f"killed by signal {-code}"


class JobProcessError(RuntimeError):
    """The process of a job ended without recording a result or an error."""


def _record_failure(record: Record, code: int) -> None:
    try:
        record.write_status("failed", reason=record.write_error(JobProcessError(exit_reason(code))))
    except CannotWriteError as error:
        # Nowhere else would be said why this one has no result.
        say(f"{type(record).__name__.lower()} {record.signature} failed: {exit_reason(code)}; {error}")
