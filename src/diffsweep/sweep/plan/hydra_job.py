"""Hydra's objects for a job that our own processes run: the config with its `hydra` node, and the return value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.sweep.plan.plan import Plan, Task
from diffsweep.sweep.store.blocked import blocked_reason
from diffsweep.sweep.store.record import Run

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from omegaconf import DictConfig


def hydra_node(master: DictConfig) -> dict[str, Any]:
    """The `hydra` node of the launching config as plain containers, with the same meaning in every process."""
    from omegaconf import OmegaConf

    node: Any = OmegaConf.to_container(master.hydra, resolve=False, enum_to_str=True)
    # The time is in its name, and a job would read it again.
    node["sweep"]["dir"] = str(master.hydra.sweep.dir)
    return node


def job_config(plan: Plan, task: Task) -> DictConfig:
    """The config of one task with its `hydra` node, as a task function, a callback or HydraConfig sees it."""
    from hydra.conf import HydraConf
    from omegaconf import OmegaConf, open_dict

    node: Any = OmegaConf.structured(HydraConf)
    with open_dict(node):
        node.merge_with(OmegaConf.create(dict(plan.hydra)))
        node.job.num, node.job.id = task.num, str(task.num)
        node.overrides.task = list(task.overrides)
        node.job.override_dirname = ",".join(task.overrides)
        node.runtime.choices = dict(plan.parts[task.choices])
        node.runtime.output_dir = str(Path(node.sweep.dir).absolute())
    config: Any = OmegaConf.create(plan.config(task.cell))
    config.hydra = node
    return config


def job_return(plan: Plan, task: Task) -> JobReturn:
    """The sweeper's return value for one task, from its record: the main metric, or why there is none."""
    from hydra.core.utils import JobReturn, JobStatus

    run = plan.run(task.cell)
    result = run.cell.result()
    # Without cfg, which costs 10 ms to make and is known to on_job_end: a sweep may have ten thousand tasks.
    back = JobReturn(overrides=list(task.overrides), working_dir=str(plan.folder), task_name="train")
    if result is not None:
        back.return_value = result.main.value
        back.status = JobStatus.COMPLETED
    else:
        back.return_value = NoResultError(failure_reason(run))
        back.status = JobStatus.FAILED
    return back


class NoResultError(RuntimeError):
    """A cell of a sweep that has no result."""


def failure_reason(run: Run) -> str:
    """Why a run has no result, in one line."""
    error = run.cell.error()
    if error is not None:
        return error
    for record in (run.autoencoder, run.fit):
        if record is not None and not record.done:
            return blocked_reason(record.signature, record.error() or "it was never trained", record.noun)
    return "it was never evaluated"
