"""What becomes of a job whose process has ended: what is left of it goes on, what cannot is recorded.

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

from diffsweep.sweep.plan.jobs import Job
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.store.record import CannotWriteError, Record

_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
INTERRUPTED = frozenset([*(-number for number in _STOPS), *(128 + number for number in _STOPS)])


class Follow:
    """Follows the processes of one sweep, or of one SLURM job.

    `retries`: how often a fit or cell whose process was killed is tried again. Raises ValueError below 0.
    """

    def __init__(self, plan: Plan, retries: int) -> None:
        if retries < 0:
            raise ValueError(f"retries={retries} must be 0 or more")
        self.plan = plan
        self.retries = retries
        self._tried: Counter[str] = Counter()

    def rest(self, job: Job, code: int, told: Mapping[str, bool]) -> Job | None:
        """What must still be run of `job`, None for nothing.

        `code` is the exit code of its process, negative for the signal that killed it; `told` says which of its cells
        the process itself declared over, and whether they are done.
        """
        if code in INTERRUPTED:
            return None
        if job.kind == "fit":
            run = self.plan.run(job.cells[0])
            if run.fit.done:
                return None
            if code < 0 and self._again(job.fit):
                # With another cell's config, if there is one: they are the same to the fit, and one of them may kill.
                return replace(job, cells=(*job.cells[1:], job.cells[0]))
            if code <= 0 or run.fit.error() is None:
                _failed(run.fit, code)
            return None
        left = tuple(cell for cell in job.cells if cell not in told)
        if not left:
            return None
        if code < 0 and self._again(left[0]):
            return replace(job, cells=left)
        record = self.plan.cell(left[0])
        if not record.done:
            _failed(record, code)
        return replace(job, cells=left[1:]) if left[1:] else None

    def _again(self, signature: str) -> bool:
        self._tried[signature] += 1
        return self._tried[signature] <= self.retries


def ended(code: int) -> str:
    """An exit code in words: `killed by SIGKILL (out of memory, or kill -9)`."""
    if code >= 0:
        return f"its process ended with exit code {code}: the log says why"
    with suppress(ValueError):
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory, or kill -9)" if name == "SIGKILL" else "")
    return f"killed by signal {-code}"


class Died(RuntimeError):
    """The process of a job ended without a word."""


def _failed(record: Record, code: int) -> None:
    with suppress(CannotWriteError):
        record.write_status("failed", reason=record.write_error(Died(ended(code))))
