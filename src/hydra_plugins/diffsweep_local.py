"""`hydra/launcher=local`: the jobs of a sweep as processes of this machine, see `sweep.execute.local_pool`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.plugins.launcher import Launcher

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

    from diffsweep.sweep.plan.jobs import RemainingWork
    from diffsweep.sweep.plan.plan import Plan


class LocalLauncher(Launcher):
    """Runs a sweep on this machine.

    Args:
        jobs: At once, >= 1; null for as many as GPUs or cores allow.
        jobs_per_gpu: How many small jobs share one GPU, >= 1.
        cells_per_job: Cells that one process evaluates in sequence, >= 1; null for even shares.
        retries: How often a fit or cell whose process was killed is tried again, >= 0.
    """

    def __init__(
        self, jobs: int | None = None, jobs_per_gpu: int = 1, cells_per_job: int | None = None, retries: int = 1
    ) -> None:
        self.jobs = jobs
        self.jobs_per_gpu = jobs_per_gpu
        self.cells_per_job = cells_per_job
        self.retries = retries

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from diffsweep.entry.launch import launch
        from diffsweep.mistakes import whole

        for key, least in (("jobs", 1), ("jobs_per_gpu", 1), ("cells_per_job", 1), ("retries", 0)):
            value = getattr(self, key)
            if value is not None or key in ("jobs_per_gpu", "retries"):
                whole(f"hydra.launcher.{key}", value, least)
        return launch(self.start, self.loader, self.config, job_overrides, initial_job_idx)

    def start(self, plan: Plan, remaining: RemainingWork) -> None:
        """Run the jobs of `remaining` to their end. Raises ValueError, KeyboardInterrupt as `LocalPool`."""
        from diffsweep.report.live import LiveView
        from diffsweep.sweep.execute.local_pool import LocalPool, MachineResources
        from diffsweep.sweep.execute.retry import RetryPolicy
        from diffsweep.sweep.plan import prepare, snapshot
        from diffsweep.sweep.status.monitor import Monitor

        machine, retry_policy = MachineResources.detect(self.jobs_per_gpu), RetryPolicy(plan, self.retries)
        # Four jobs for each that runs at once: the last ones then end at about the same time.
        at_once = self.jobs or max(machine.cores, len(machine.gpus) * self.jobs_per_gpu)
        cells_per_job = self.cells_per_job or math.ceil(len(remaining.cells) / (4 * at_once))
        jobs = prepare.with_local_ids(remaining.jobs(plan, cells_per_job))
        source = snapshot.take(
            plan.folder, Path(plan.hydra["runtime"]["cwd"]), prepare.config_folders(plan), prepare.names(plan)
        )
        pool = LocalPool(plan, jobs, source, retry_policy, machine, self.jobs)
        launch = prepare.record_local_launch(plan, jobs)
        try:
            monitor = Monitor(plan)
            with LiveView(plan) as view:
                pool.run(lambda: view.show(monitor.read()))
        finally:
            with suppress(ValueError):
                launch.end(plan.folder)
