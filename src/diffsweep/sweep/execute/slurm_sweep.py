"""A sweep on a SLURM cluster: what is submitted behind what, and what a launcher that waits does.

One array of fits for each class of resources; behind every fit (afterok, killed if that can no longer be) the jobs that
evaluate its cells; behind them all (afterany) the one that writes the table. Nobody needs to wait for them: a launcher
that is killed or detached loses nothing, and no job submits another.
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
from diffsweep.sweep.plan.jobs import Job, Launched, Todo
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.status.monitor import Watch
from diffsweep.sweep.status.sweep_state import Look
from diffsweep.sweep.store.process import Process


@dataclass(frozen=True)
class Policy:
    """How a sweep uses the cluster; see `hydra_plugins.diffsweep_slurm.SlurmLauncher`.

    Raises ValueError for numbers out of range.
    """

    throttle: int | None
    cells_per_job: int | None
    retries: int
    requeues: int
    signal_seconds: int
    poll_seconds: float
    detach: bool

    def __post_init__(self) -> None:
        least = {"throttle": 1, "cells_per_job": 1, "retries": 0, "requeues": 0, "signal_seconds": 1, "poll_seconds": 0}
        for key, bound in least.items():
            value = getattr(self, key)
            if value is not None and value < bound:
                raise ValueError(f"hydra.launcher.{key}={value} must be {bound} or more")


class View(Protocol):
    """Whoever shows how a sweep goes on."""

    def show(self, look: Look) -> None:
        """Show one look."""
        ...


Call = Callable[[str, Job, Policy], Callable[[], object]]


def submit(plan: Plan, todo: Todo, policy: Policy, call: Call) -> Launched:
    """Submit the jobs of `todo` and write jobs.json after every answer of SLURM, so that no job is ever unknown.

    `call` makes what a job calls of the sweep's folder, the job and the policy. Raises ValueError if SLURM refuses.
    """
    folder = plan.folder.absolute()
    jobs = [*todo.jobs(plan, policy.cells_per_job), Job("finish")]
    works = [
        slurm.Work(call(str(folder), job, policy), f"{job.kind}-{job.fit}", resources(plan, job), job.after)
        for job in jobs
    ]
    before = Launched.read(plan.folder)
    old = before.jobs if before and before.kind == "slurm" else ()
    launcher = None if policy.detach else Process.current()

    def note(ids: Mapping[int, str]) -> Launched:
        known = tuple(
            replace(jobs[place], id=name, log=f"slurm/{name}_0_log.out") for place, name in sorted(ids.items())
        )
        launched = Launched("slurm", (*old, *known), launcher)
        launched.write(plan.folder)
        return launched

    cwd = Path(plan.hydra["runtime"]["cwd"])
    source = snapshot.take(plan.folder, cwd, prepare.configs(plan))
    ids = slurm.submit(
        works[:-1],
        folder / "slurm",
        throttle=policy.throttle,
        environment=snapshot.environment(source),
        signal_seconds=policy.signal_seconds,
        requeues=policy.requeues,
        job_name=f"diffsweep:{plan.name}",
        last=works[-1],
        on_submitted=note,
    )
    return note(ids)


def resources(plan: Plan, job: Job) -> slurm.Resources:
    """What a job asks for: its block of the group `resources`, and nodes, tasks and GPUs as its trainer needs them.

    Raises ValueError for a bad value, or a number of devices that is not said.
    """
    cell = job.cells[0] if job.cells else next(iter(plan.cells))
    asked: dict[str, Any] = dict((plan.part(cell, "resources") or {}).get(job.kind) or {})
    if job.kind == "finish":
        return slurm.Resources.of(asked)
    trainer = plan.part(cell, "trainer") or {}
    devices, gpu = trainer.get("devices", 1), trainer.get("accelerator") in ("gpu", "cuda")
    if not isinstance(devices, int) or devices < 1:
        raise ValueError(
            f"trainer.devices={devices}: on a cluster say how many devices a job has on each node, as trainer.devices=4"
        )
    if gpu and asked.get("gres") is None:
        asked["gres"] = f"gpu:{devices}"
    return slurm.Resources.of({**asked, "nodes": trainer.get("num_nodes", 1), "tasks_per_node": devices})


def start(
    plan: Plan, todo: Todo, policy: Policy, call: Call, view: Callable[[Plan], AbstractContextManager[View]]
) -> None:
    """Submit the jobs of `todo` that are not in the queue already, and wait unless the policy is to detach.

    Raises ValueError for what SLURM refuses, KeyboardInterrupt while waiting (the jobs go on).
    """
    if not slurm.available():
        raise ValueError(
            "hydra/launcher=slurm needs sbatch, which is not here; hydra/launcher=local runs on this machine"
        )
    live = _queued(plan)
    if live:
        busy = {job.fit for job in live}
        left = [cell for cell in todo.cells if plan.cells[cell].fit in busy]
        todo = replace(
            todo,
            fits=tuple(fit for fit in todo.fits if fit not in busy),
            cells=tuple(cell for cell in todo.cells if plan.cells[cell].fit not in busy),
        )
        say(f"{len(left)} cells of it are in the queue already")
    if todo.cells:
        launched = submit(plan, todo, policy, call)
        say(f"submitted {len(launched.jobs)} jobs of sweep {plan.name}, which goes on whatever becomes of this process")
    elif not live:
        return
    if policy.detach:
        say(*_commands(plan))
        return
    wait(plan, policy.poll_seconds, view)
    if (launched := Launched.read(plan.folder)) is not None:
        launched.end(plan.folder)


def wait(plan: Plan, poll_seconds: float, view: Callable[[Plan], AbstractContextManager[View]]) -> None:
    """Show how the sweep goes on until none of its jobs has anything left to do."""
    watch = Watch(plan, every=poll_seconds)
    try:
        with view(plan) as shown:
            while True:
                look = watch.look()
                shown.show(look)
                both = look.counts + look.fit_counts
                if not both["running"] + both["waiting"]:
                    return
                time.sleep(min(1.0, poll_seconds))
    except KeyboardInterrupt:
        say("the jobs go on without this process:", *_commands(plan))
        raise


def _queued(plan: Plan) -> tuple[Job, ...]:
    """Jobs of earlier launches of this plan that SLURM still has. Raises ValueError if it cannot be asked."""
    before = Launched.read(plan.folder)
    ids = [job.id for job in before.jobs] if before and before.kind == "slurm" else []
    if not ids:
        return ()
    assert before is not None
    queue = slurm.queue(ids)
    if queue is None:
        raise ValueError("squeue gives no answer, so what is queued already is not known: try again later")
    return tuple(job for job in before.jobs if job.kind != "finish" and job.id in queue)


def _commands(plan: Plan) -> tuple[str, str]:
    return f"  {plan.asking('status')}", f"  {plan.asking('cancel')}"
