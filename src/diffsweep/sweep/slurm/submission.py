"""Submission to SLURM through submitit: callables become jobs, in as few submissions as possible.

No job submits another, and none is left behind: a submission that fails halfway is taken back, a job whose dependency
can no longer be satisfied is cancelled by SLURM, and a job that raises is FAILED to SLURM.
"""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffsweep.sweep.slurm.commands import available, chunks, max_array_size
from diffsweep.sweep.slurm.queue import cancel
from diffsweep.sweep.slurm.reasons import refusal_of
from diffsweep.sweep.slurm.resources import Resources, minutes
from diffsweep.sweep.slurm.setup import checked_setup


@dataclass(frozen=True)
class Work:
    """A callable to run as a job.

    Attributes:
        call: Is pickled; a `checkpoint()` method of it is submitit's: called when the time is nearly over, it returns
            what the requeued job runs.
        name: For messages.
        resources: What the job asks for.
        after: Indices in the same list of works that must have succeeded before.
        after_ids: SLURM's ids of jobs that were submitted before, likewise; of the last work, jobs that must have
            ended, however.
        key: Of the resources in the config, for messages.
    """

    call: Callable[[], object]
    name: str
    resources: Resources = field(default_factory=Resources)
    after: tuple[int, ...] = ()
    after_ids: tuple[str, ...] = ()
    key: str = "resources"

    @property
    def waits(self) -> bool:
        """Whether it depends on other jobs."""
        return bool(self.after or self.after_ids)


def submit(
    works: Sequence[Work],
    folder: Path,
    *,
    throttle: int | None,
    environment: Mapping[str, str],
    python: str | None = None,
    signal_seconds: int = 120,
    requeues: int = 5,
    job_name: str,
    last: Work | None = None,
    on_submitted: Callable[[dict[int, str]], object],
) -> dict[int, str]:
    """Submit `works`: one array for each class of resources, and one job for each work that comes after others.

    A work whose predecessor fails is cancelled by SLURM. `last` starts when all the others have ended, however; its
    place is `len(works)`. Logs, pickles and scripts go to `folder`, which the nodes must see; the log of a job is
    `<id>_0_log.out`.

    `throttle`: at most so many jobs of an array at once; `environment` is exported to the jobs after their setup;
    `python`: the interpreter (default: this one); `signal_seconds` before the time limit the job is warned (SIGUSR2)
    and, if it has a checkpoint, requeued, at most `requeues` times. `on_submitted` hears after every answer of SLURM
    which places have which ids by now. Returns the ids, as squeue writes them (812, or 812_3 in an array).

    Raises ValueError, in one line, if SLURM refuses; whatever was submitted is then cancelled again.
    """
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    if not available():
        raise ValueError("there is no SLURM here: sbatch and srun are not found")
    ids: dict[int, str] = {}
    everything = [*works, *([last] if last is not None else [])]
    exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    # Where the site has SBATCH_EXPORT=NONE, the tasks would not see what the setup exports.
    exports.append("export SLURM_EXPORT_ENV=ALL")

    def send(places: Sequence[int], dependency: str | None = None) -> None:
        first = everything[places[0]]
        executor = SlurmExecutor(folder, max_num_timeout=requeues, python=shlex.quote(python or sys.executable))
        executor.update_parameters(
            **_parameters(first.resources, exports),
            job_name=job_name,
            signal_delay_s=signal_seconds,
            dependency=dependency,
            array_parallelism=throttle or len(places),
            wckey=None,
            stderr_to_stdout=True,
        )
        try:
            # submitit prints SLURM's complaint besides raising it.
            with _outside_of_jobs(), redirect_stderr(io.StringIO()):
                jobs = executor.submit_array([_guarded(everything[place]) for place in places])
        except (FailedJobError, FailedSubmissionError) as error:
            reason = refusal_of(str(error), first.resources, first.key)
            raise ValueError(f"SLURM refuses {first.name}: {reason}") from error
        ids.update({place: job.job_id for place, job in zip(places, jobs, strict=True)})
        on_submitted(dict(ids))

    try:
        for chunk in _arrays(works, max_array_size()):
            send(chunk)
        left = [place for place, work in enumerate(works) if work.waits]
        while left:
            ready = [place for place in left if all(other in ids for other in works[place].after)]
            assert ready, f"works {left} wait for each other"
            for place in ready:
                earlier = [*(ids[other] for other in works[place].after), *works[place].after_ids]
                send([place], f"afterok:{':'.join(earlier)}")
            left = [place for place in left if place not in ids]
        if last is not None:
            # An array's own id stands for all its tasks.
            ended = ":".join(dict.fromkeys([*(name.partition("_")[0] for name in ids.values()), *last.after_ids]))
            send([len(works)], f"afterany:{ended}" if ended else None)
    except BaseException as error:
        try:
            cancel(ids.values())
        except ValueError as another:
            raise ValueError(f"{error}; and of what was submitted, {', '.join(ids.values())}: {another}") from error
        raise
    return ids


@dataclass(frozen=True)
class _Unlimited:
    """A call whose time limit the site decides: submitit does not know it, and its handler would fail for that."""

    call: Callable[[], object]

    def __call__(self) -> object:
        submission = getattr(getattr(signal.getsignal(signal.SIGUSR2), "__self__", None), "_delayed", None)
        if submission is not None:
            # With 0 minutes every warning counts as a time-out.
            submission.set_timeout(0, submission._timeout_countdown)
        return self.call()

    def __getattr__(self, name: str) -> Any:
        # submitit asks whether there is one.
        if name == "checkpoint":
            return self.call.checkpoint  # type: ignore[attr-defined]
        raise AttributeError(name)


def _guarded(work: Work) -> Callable[[], object]:
    return _Unlimited(work.call) if minutes(work.resources.time) is None else work.call


def _parameters(resources: Resources, exports: Sequence[str]) -> dict[str, Any]:
    """`resources` in submitit's words."""
    extra: dict[str, Any] = {
        name.replace("_", "-"): value for name, value in resources.extra.items() if value is not False
    }
    extra |= {"requeue": True, "kill-on-invalid-dep": "yes"}
    # One task that dies must not leave the others waiting for it.
    srun = ["--kill-on-bad-exit=1"]
    if resources.cpus is not None:
        # Since SLURM 22.05 srun does not take it from sbatch.
        srun.append(f"--cpus-per-task={resources.cpus}")
    if resources.time is not None:
        extra["time"] = resources.time
    names = ("partition", "account", "qos", "gres", "constraint", "exclude", "nodes")
    return {name: getattr(resources, name) for name in names} | {
        "time": minutes(resources.time),
        "mem": resources.memory,
        "cpus_per_task": resources.cpus,
        "ntasks_per_node": resources.tasks_per_node,
        "setup": [*checked_setup(resources.setup), *exports],
        "srun_args": srun,
        "additional_parameters": extra,
    }


def _arrays(works: Sequence[Work], size: int) -> Iterator[list[int]]:
    """Places of the works that wait for nothing, those of equal resources together, at most `size` in one."""
    classes: list[tuple[Resources, list[int]]] = []
    for place, work in enumerate(works):
        if work.waits:
            continue
        for resources, places in classes:
            if resources == work.resources:
                places.append(place)
                break
        else:
            classes.append((work.resources, [place]))
    for _, places in classes:
        yield from chunks(places, size)


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """In the block, what submits is no job itself: sbatch would take the variables of one for options."""
    from submitit.helpers import clean_env

    kept = {name: value for name, value in os.environ.items() if name == "SLURM_CONF" or name.startswith("SBATCH_")}
    with clean_env():
        os.environ.update(kept)
        yield
