"""A sweep on a SLURM cluster: the submission of its jobs with their dependencies, and the wait for their end.

One array of fits for each class of resources; after every fit (afterok, cancelled if the fit fails) the jobs that
evaluate its cells; after all of them (afterany) the job that writes the table. No process needs to wait for the jobs: a
launcher that is killed or detached loses nothing, and no job submits another.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from diffsweep.messages import say
from diffsweep.sweep import slurm
from diffsweep.sweep.plan import prepare, snapshot
from diffsweep.sweep.plan.jobs import Job, LaunchRecord, RemainingWork
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.status.monitor import Monitor
from diffsweep.sweep.status.sweep_state import SweepState
from diffsweep.sweep.store.lease import Lease
from diffsweep.sweep.store.process import Process


@dataclass(frozen=True)
class SlurmSettings:
    """How a sweep uses the cluster: the arguments of `hydra_plugins.diffsweep_slurm.SlurmLauncher`.

    Raises ValueError for numbers out of range.
    """

    throttle: int | None = None
    cells_per_job: int | None = None
    retries: int = 1
    requeues: int = 20
    signal_seconds: int = 120
    poll_seconds: float = 15.0
    detach: bool = False

    def __post_init__(self) -> None:
        least = {"throttle": 1, "cells_per_job": 1, "retries": 0, "requeues": 0, "signal_seconds": 1, "poll_seconds": 0}
        for key, bound in least.items():
            value = getattr(self, key)
            if value is not None and value < bound:
                raise ValueError(f"hydra.launcher.{key}={value} must be {bound} or more")


class View(Protocol):
    """A display of a sweep's state."""

    def show(self, state: SweepState, /) -> None:
        """Show the newest state."""
        ...


# The folder of the sweep, a job, the settings -> what SLURM runs for that job.
MakeCall = Callable[[str, Job, SlurmSettings], Callable[[], object]]


def submit(
    plan: Plan,
    remaining: RemainingWork,
    settings: SlurmSettings,
    make_call: MakeCall,
    queued: QueuedJobs | None = None,
) -> LaunchRecord:
    """Submit the jobs of `remaining` and write jobs.json after every answer of SLURM, so that no job is ever unknown.

    `queued`: jobs that SLURM has already, which are waited for and not submitted. Raises ValueError if SLURM refuses;
    jobs.json is then as it was, and no job of this call is left in the queue.
    """
    queued = queued or QueuedJobs()
    folder = plan.folder.absolute()
    jobs = [*remaining.jobs(plan, settings.cells_per_job), Job("finish")]
    new = {job.fit for job in jobs if job.trains}

    def work(job: Job) -> slurm.Work:
        if job.kind == "finish":
            earlier = tuple(queued.ids)
        else:
            wanted = (*plan.earlier(job.fit), *((job.fit,) if job.kind == "cells" else ()))
            earlier = tuple(queued.fits[fit].id for fit in wanted if fit in queued.fits and fit not in new)
        call, name = make_call(str(folder), job, settings), f"{job.kind}-{job.fit}"
        return slurm.Work(call, name, resources(plan, job), job.after, earlier, job.resources_key)

    works = [work(job) for job in jobs]
    before = LaunchRecord.read(plan.folder)
    old = before.jobs if before and before.kind == "slurm" else ()
    known_ids = {job.id for job in old}
    old = (*old, *(job for job in queued.jobs if job.id not in known_ids))
    launcher = None if settings.detach else Process.current()

    def record(ids: Mapping[int, str]) -> LaunchRecord:
        known = tuple(
            replace(jobs[place], id=name, log=f"slurm/{name}_0_log.out") for place, name in sorted(ids.items())
        )
        launch = LaunchRecord("slurm", (*old, *known), launcher)
        launch.write(plan.folder)
        return launch

    cwd = Path(plan.hydra["runtime"]["cwd"])
    source = snapshot.take(plan.folder, cwd, prepare.config_folders(plan), prepare.names(plan))
    try:
        ids = slurm.submit(
            works[:-1],
            folder / "slurm",
            throttle=settings.throttle,
            environment=snapshot.environment(source),
            signal_seconds=settings.signal_seconds,
            requeues=settings.requeues,
            job_name=f"diffsweep:{plan.name}",
            last=works[-1],
            on_submitted=record,
        )
    except ValueError:
        # A sweep that is refused, even in part, leaves nothing.
        if before is None:
            LaunchRecord.remove(plan.folder)
            shutil.rmtree(folder / "slurm", ignore_errors=True)
        else:
            before.write(plan.folder)
        raise
    return record(ids)


def resources(plan: Plan, job: Job) -> slurm.Resources:
    """The resources of a job: its block of the group `resources`, with the nodes, tasks and GPUs of its trainer.

    Raises ValueError for a bad value, or a number of devices that is not said.
    """
    cell = job.cells[0] if job.cells else next(iter(plan.cells))
    block: dict[str, Any] = dict((plan.part(cell, "resources") or {}).get(job.resources_key.rpartition(".")[2]) or {})
    if job.kind == "finish":
        return slurm.Resources.of(block)
    trainer = plan.part(cell, "trainer") or {}
    devices, gpu = trainer.get("devices", 1), trainer.get("accelerator") in ("gpu", "cuda")
    if not isinstance(devices, int) or devices < 1:
        raise ValueError(
            f"trainer.devices={devices}: on a cluster say how many devices a job has on each node, as trainer.devices=4"
        )
    if job.kind == "autoencoder":
        # It is trained on one device, however many a fit has.
        devices, trainer = 1, {**trainer, "num_nodes": 1}
    if gpu and block.get("gres") is None:
        block["gres"] = f"gpu:{devices}"
    return slurm.Resources.of({**block, "nodes": trainer.get("num_nodes", 1), "tasks_per_node": devices})


def start(
    plan: Plan,
    remaining: RemainingWork,
    settings: SlurmSettings,
    make_call: MakeCall,
    view: Callable[[Plan], AbstractContextManager[View]],
) -> None:
    """Submit the jobs of `remaining` that are not in the queue already, and wait unless the settings say to detach.

    Raises ValueError for what SLURM refuses, KeyboardInterrupt while waiting (the jobs go on).
    """
    if not slurm.available():
        raise ValueError(
            "hydra/launcher=slurm needs sbatch, which is not here; hydra/launcher=local runs on this machine"
        )
    with Lease(plan.runs / "cache" / "submission").acquire(on_wait=_say_who_submits):
        # Two commands at once must not both find that nothing is queued.
        queued = QueuedJobs.of(plan, remaining)
        left = queued.without(remaining)
        others = {job.sweep for job in queued.jobs if job.sweep}
        for text in queued.notes(remaining):
            say(text)
        if left.cells or others:
            launch = submit(plan, left, settings, make_call, queued)
            count = len(launch.jobs) - len(queued.jobs)
            say(f"submitted {count} jobs of sweep {plan.name}, which goes on whatever becomes of this process")
        elif not queued.jobs:
            return
    if settings.detach:
        say(*_suggestions(plan))
        return
    wait(plan, settings.poll_seconds, view)
    if (launched := LaunchRecord.read(plan.folder)) is not None:
        launched.end(plan.folder)


def wait(plan: Plan, poll_seconds: float, view: Callable[[Plan], AbstractContextManager[View]]) -> None:
    """Show the state of the sweep until none of its jobs runs or waits."""
    monitor = Monitor(plan, poll_seconds=poll_seconds)
    try:
        with view(plan) as shown:
            while True:
                state = monitor.read()
                shown.show(state)
                both = state.counts + state.fit_counts
                if not both["running"] + both["waiting"]:
                    return
                time.sleep(min(1.0, poll_seconds))
    except KeyboardInterrupt:
        say("the jobs go on without this process:", *_suggestions(plan))
        raise


@dataclass(frozen=True)
class QueuedJobs:
    """The jobs in SLURM's queue, of this sweep or others with the same folder of runs, that do a part of its work.

    `fits` and `cells` map what is to be done to the job that does it; a job of another sweep names it, as `Job.sweep`.
    """

    fits: Mapping[str, Job] = field(default_factory=dict)
    cells: Mapping[str, Job] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, remaining: RemainingWork) -> QueuedJobs:
        """The queued jobs that do a part of `remaining`. Raises ValueError if SLURM cannot be asked."""
        candidates = list(_launched_jobs(plan))
        queue = slurm.queue({job.id for job in candidates}) if candidates else {}
        if queue is None:
            raise ValueError("squeue gives no answer, so what is queued already is not known: try again later")
        fits, cells = set(remaining.fits), set(remaining.cells)
        found_fits: dict[str, Job] = {}
        found_cells: dict[str, Job] = {}
        for job in candidates:
            if job.id in queue:
                if job.trains and job.fit in fits:
                    found_fits.setdefault(job.fit, job)
                if job.kind == "cells":
                    found_cells |= {cell: job for cell in job.cells if cell in cells and cell not in found_cells}
        return cls(found_fits, found_cells)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Every job once."""
        return tuple({job.id: job for job in (*self.fits.values(), *self.cells.values())}.values())

    @property
    def ids(self) -> list[str]:
        """SLURM's names of the jobs."""
        return [job.id for job in self.jobs]

    def without(self, remaining: RemainingWork) -> RemainingWork:
        """The part of `remaining` that none of these jobs does."""
        return replace(
            remaining,
            fits=tuple(fit for fit in remaining.fits if fit not in self.fits),
            cells=tuple(cell for cell in remaining.cells if cell not in self.cells),
        )

    def notes(self, remaining: RemainingWork) -> list[str]:
        """What is in the queue already, for the user: one line for each sweep that has launched it."""
        lines = []
        for sweep in sorted({job.sweep for job in self.jobs}):
            jobs = [job for job in self.jobs if job.sweep == sweep]
            fits = sum(job.sweep == sweep for job in self.fits.values())
            cells = sum(job.sweep == sweep for job in self.cells.values())
            whose = f"of sweep {sweep}" if sweep else "of this sweep"
            ids = ", ".join(job.id for job in jobs[:3]) + (", ..." if len(jobs) > 3 else "")
            lines.append(
                f"in the queue already: {fits} of {len(remaining.fits)} trainings and {cells} of "
                f"{len(remaining.cells)} cells, as jobs {whose} ({ids}); they are waited for, not submitted again"
            )
        return lines


def _launched_jobs(plan: Plan) -> Iterator[Job]:
    """The jobs that sweeps with the same folder of runs have submitted and that may not be over; this sweep's first."""
    here = plan.folder.absolute()
    for path in sorted(plan.runs.glob("sweeps/*/jobs.json"), key=lambda path: path.parent.absolute() != here):
        try:
            launch = LaunchRecord.read(path.parent)
        except (ValueError, KeyError, TypeError, OSError):
            # Another sweep's record that cannot be read is no reason not to submit this one.
            continue
        if launch is None or launch.kind != "slurm" or launch.ended:
            continue
        own = path.parent.absolute() == here
        for job in launch.jobs:
            if job.id and own:
                yield job
            elif job.id and not job.sweep:
                yield replace(job, after=(), sweep=path.parent.name, log=f"../{path.parent.name}/{job.log}")


def _say_who_submits(holder: Process | None) -> None:
    say(f"{holder or 'another process'} is submitting a sweep with the same folder of runs: waiting for it")


def _suggestions(plan: Plan) -> tuple[str, str]:
    return f"  {plan.command_for('status')}", f"  {plan.command_for('cancel')}"
