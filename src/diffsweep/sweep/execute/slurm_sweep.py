"""A sweep on a SLURM cluster: the submission of its jobs with their dependencies, and the wait for their end.

One array of fits for each class of resources; after every fit (afterok, cancelled if the fit fails) the jobs that
evaluate its cells; after all of them (afterany) the job that writes the table. No process needs to wait for the jobs: a
launcher that is killed or detached loses nothing, and no job submits another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from diffsweep.messages import say
from diffsweep.sweep import slurm
from diffsweep.sweep.plan import prepare, snapshot
from diffsweep.sweep.plan.jobs import Job, LaunchRecord, RemainingWork
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.status.monitor import Monitor
from diffsweep.sweep.status.sweep_state import SweepState
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


def submit(plan: Plan, remaining: RemainingWork, settings: SlurmSettings, make_call: MakeCall) -> LaunchRecord:
    """Submit the jobs of `remaining` and write jobs.json after every answer of SLURM, so that no job is ever unknown.

    Raises ValueError if SLURM refuses.
    """
    folder = plan.folder.absolute()
    jobs = [*remaining.jobs(plan, settings.cells_per_job), Job("finish")]
    works = [
        slurm.Work(make_call(str(folder), job, settings), f"{job.kind}-{job.fit}", resources(plan, job), job.after)
        for job in jobs
    ]
    before = LaunchRecord.read(plan.folder)
    old = before.jobs if before and before.kind == "slurm" else ()
    launcher = None if settings.detach else Process.current()

    def note(ids: Mapping[int, str]) -> LaunchRecord:
        known = tuple(
            replace(jobs[place], id=name, log=f"slurm/{name}_0_log.out") for place, name in sorted(ids.items())
        )
        launched = LaunchRecord("slurm", (*old, *known), launcher)
        launched.write(plan.folder)
        return launched

    cwd = Path(plan.hydra["runtime"]["cwd"])
    source = snapshot.take(plan.folder, cwd, prepare.config_folders(plan))
    ids = slurm.submit(
        works[:-1],
        folder / "slurm",
        throttle=settings.throttle,
        environment=snapshot.environment(source),
        signal_seconds=settings.signal_seconds,
        requeues=settings.requeues,
        job_name=f"diffsweep:{plan.name}",
        last=works[-1],
        on_submitted=note,
    )
    return note(ids)


def resources(plan: Plan, job: Job) -> slurm.Resources:
    """The resources of a job: its block of the group `resources`, with the nodes, tasks and GPUs of its trainer.

    Raises ValueError for a bad value, or a number of devices that is not said.
    """
    cell = job.cells[0] if job.cells else next(iter(plan.cells))
    block: dict[str, Any] = dict((plan.part(cell, "resources") or {}).get(job.kind) or {})
    if job.kind == "finish":
        return slurm.Resources.of(block)
    trainer = plan.part(cell, "trainer") or {}
    devices, gpu = trainer.get("devices", 1), trainer.get("accelerator") in ("gpu", "cuda")
    if not isinstance(devices, int) or devices < 1:
        raise ValueError(
            f"trainer.devices={devices}: on a cluster say how many devices a job has on each node, as trainer.devices=4"
        )
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
    live = _queued(plan)
    if live:
        busy = {job.fit for job in live}
        left = [cell for cell in remaining.cells if plan.cells[cell].fit in busy]
        remaining = replace(
            remaining,
            fits=tuple(fit for fit in remaining.fits if fit not in busy),
            cells=tuple(cell for cell in remaining.cells if plan.cells[cell].fit not in busy),
        )
        say(f"{len(left)} cells of it are in the queue already")
    if remaining.cells:
        launched = submit(plan, remaining, settings, make_call)
        say(f"submitted {len(launched.jobs)} jobs of sweep {plan.name}, which goes on whatever becomes of this process")
    elif not live:
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


def _queued(plan: Plan) -> tuple[Job, ...]:
    """Jobs of earlier launches of this plan that SLURM still has. Raises ValueError if it cannot be asked."""
    before = LaunchRecord.read(plan.folder)
    ids = [job.id for job in before.jobs] if before and before.kind == "slurm" else []
    if not ids:
        return ()
    assert before is not None
    queue = slurm.queue(ids)
    if queue is None:
        raise ValueError("squeue gives no answer, so what is queued already is not known: try again later")
    return tuple(job for job in before.jobs if job.kind != "finish" and job.id in queue)


def _suggestions(plan: Plan) -> tuple[str, str]:
    return f"  {plan.command_for('status')}", f"  {plan.command_for('cancel')}"
