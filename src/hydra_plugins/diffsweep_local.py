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

    from diffsweep.sweep.plan.jobs import Todo
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

        return launch(self.start, self.loader, self.config, job_overrides, initial_job_idx)

    def start(self, plan: Plan, todo: Todo) -> None:
        """Run the jobs of `todo` to their end. Raises ValueError, KeyboardInterrupt as `Pool`."""
        from diffsweep.report.live import LiveView
        from diffsweep.sweep.execute.local_pool import Pool, Room
        from diffsweep.sweep.execute.retry import Follow
        from diffsweep.sweep.plan import prepare, snapshot
        from diffsweep.sweep.status.monitor import Watch

        room, follow = Room.here(self.jobs_per_gpu), Follow(plan, self.retries)
        # Four jobs for each place: the last ones then end at about the same time.
        places = self.jobs or max(room.cores, len(room.gpus) * self.jobs_per_gpu)
        jobs = prepare.named(todo.jobs(plan, self.cells_per_job or math.ceil(len(todo.cells) / (4 * places))))
        source = snapshot.take(plan.folder, Path(plan.hydra["runtime"]["cwd"]), prepare.configs(plan))
        pool = Pool(plan, jobs, source, follow, room, self.jobs)
        launched = prepare.local(plan, jobs)
        try:
            watch = Watch(plan)
            with LiveView(plan) as view:
                pool.run(lambda: view.show(watch.look()))
        finally:
            with suppress(ValueError):
                launched.end(plan.folder)
