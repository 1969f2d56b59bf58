"""A job of a sweep: trains an autoencoder or a fit, or evaluates cells of a fit; reasons of failures are in records."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffsweep.mistakes import report
from diffsweep.ranks import is_first_rank
from diffsweep.sweep.plan.jobs import Job
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.plan.snapshot import import_user_modules
from diffsweep.sweep.store.override_words import option_folders

SendEvent = Callable[[dict[str, Any]], None]


def run_job(folder: Path, job: Job, send: SendEvent) -> int:
    """Run a job: train its autoencoder or fit, or evaluate its cells, one after the other.

    `send` is called with `{"cell": ..., "done": ...}` as each cell is over. Returns the exit code: 0, or 1 if
    anything failed; the reasons are in the records.
    """
    plan = Plan.read(folder)
    os.chdir(plan.hydra["runtime"]["cwd"])
    import_user_modules(Path.cwd())
    return _train(plan, job) if job.trains else _cells(plan, job, send)


def _train(plan: Plan, job: Job) -> int:
    from omegaconf import OmegaConf

    from diffsweep.runs import stages

    cell = job.cells[0]
    for one in job.cells if len(job.cells) > 1 else ():
        # A cell whose sampler makes no sense must not keep the others from their training.
        with contextlib.suppress(Exception):
            stages.build(OmegaConf.create(plan.config(one)))
            cell = one
            break
    try:
        train = stages.train if job.kind == "fit" else stages.make_autoencoder
        train(OmegaConf.create(plan.config(cell)), plan.run(cell), plan.name)
    except Exception as error:
        report(error)
        return 1
    return 0


def _cells(plan: Plan, job: Job, send: SendEvent) -> int:
    from hydra._internal.callbacks import Callbacks
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.utils import JobReturn, JobStatus
    from omegaconf import OmegaConf

    from diffsweep.runs import stages
    from diffsweep.sweep.plan.hydra_job import job_config

    failed = False
    for cell in job.cells:
        task, run = plan.cells[cell], plan.run(cell)
        whole, cfg = job_config(plan, task), OmegaConf.create(plan.config(cell))
        HydraConfig.instance().set_config(whole)
        # Callbacks run once for each job, not on each of its devices.
        callbacks = Callbacks(whole if is_first_rank() else None)
        back = JobReturn(overrides=list(task.overrides), cfg=cfg, working_dir=str(Path.cwd()), task_name="train")
        task_function: Any = stages.score
        callbacks.on_job_start(config=whole, task_function=task_function)
        try:
            result = stages.score(cfg, run, [*option_folders(plan.hydra), *task.overrides], plan.name)
            back.return_value = result and result.main.value
            back.status = JobStatus.COMPLETED
        except Exception as error:
            back.return_value, back.status, failed = error, JobStatus.FAILED, True
            report(error)
        callbacks.on_job_end(config=whole, job_return=back)
        send({"cell": cell, "done": back.status == JobStatus.COMPLETED})
    return int(failed)
