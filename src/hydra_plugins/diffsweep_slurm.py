"""`hydra/launcher=slurm`: the jobs of a sweep on a SLURM cluster, see `diffsweep.sweep.execute.slurm_sweep`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.plugins.launcher import Launcher

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

    from diffsweep.sweep.execute.slurm_sweep import SlurmSettings
    from diffsweep.sweep.plan.jobs import RemainingWork
    from diffsweep.sweep.plan.plan import Plan
    from diffsweep.sweep.search.search import Search
    from diffsweep.sweep.search.workers import MakeWorker, Workers


class SlurmLauncher(Launcher):
    """Submits a sweep to SLURM and waits for it, unless told to detach.

    Args:
        throttle: Trainings at once, >= 1; null for as many as the cluster gives.
        cells_per_job: Cells that one job evaluates in sequence, >= 1; null for all cells of a fit.
        retries: How often, in one job, a fit or cell whose process was killed is tried again, >= 0.
        requeues: How often a job that comes to its time limit is queued again, >= 0.
        signal_seconds: Before its time limit a job saves its state and is queued again.
        poll_seconds: Between two looks at the queue.
        detach: Return after submission; the sweep finishes on its own.
    """

    def __init__(
        self,
        throttle: int | None = None,
        cells_per_job: int | None = None,
        retries: int = 1,
        requeues: int = 20,
        signal_seconds: int = 120,
        poll_seconds: float = 15,
        detach: bool = False,
    ) -> None:
        self._arguments: dict[str, Any] = {
            "throttle": throttle,
            "cells_per_job": cells_per_job,
            "retries": retries,
            "requeues": requeues,
            "signal_seconds": signal_seconds,
            "poll_seconds": poll_seconds,
            "detach": detach,
        }

    @property
    def settings(self) -> SlurmSettings:
        """How sweeps use the cluster. Raises ValueError for numbers out of range."""
        from diffsweep.sweep.execute.slurm_sweep import SlurmSettings

        return SlurmSettings(**self._arguments)

    @property
    def detaches(self) -> bool:
        """See `diffsweep.sweep.search.workers.WorkerLauncher`."""
        return self.settings.detach

    def search_workers(self, search: Search, source: Path, make_worker: MakeWorker) -> Workers:
        """See `diffsweep.sweep.search.workers.WorkerLauncher`."""
        from diffsweep.sweep.search.workers import SlurmWorkers

        return SlurmWorkers.of(search, source, self.settings, make_worker)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from diffsweep.entry.launch import launch

        return launch(self.start, self.loader, self.config, job_overrides, initial_job_idx, here=False)

    def start(self, plan: Plan, remaining: RemainingWork) -> None:
        """Submit the jobs of `remaining`, and wait. Raises ValueError for what SLURM refuses, KeyboardInterrupt."""
        from diffsweep.entry.slurm_job import make_slurm_job
        from diffsweep.report.live import LiveView
        from diffsweep.sweep.execute import slurm_sweep

        slurm_sweep.start(plan, remaining, self.settings, make_slurm_job, LiveView)
