"""`hydra/launcher=local`: the jobs of a sweep as processes of this machine. See `diffsweep.sweep.pool`."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.plugins.launcher import Launcher

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

    from diffsweep.sweep.plan import Plan


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
        from diffsweep.sweep import launch
        from diffsweep.sweep.hydra import returned

        plan = launch.begin(self.loader, self.config, job_overrides, initial_job_idx)
        self.go(plan, launch.mode(self.config))
        return [returned(plan, task) for task in plan.tasks if task.num >= initial_job_idx]

    def go(self, plan: Plan, mode: str) -> None:
        """Run what `plan` still needs. Raises ValueError, KeyboardInterrupt as `diffsweep.sweep.pool.Pool.run`."""
        from diffsweep.report.live import LiveView
        from diffsweep.sweep.state import Watch

        from diffsweep.sweep import launch, snapshot
        from diffsweep.sweep.follow import Follow
        from diffsweep.sweep.jobs import Todo
        from diffsweep.sweep.pool import Pool, Room

        todo = Todo.of(plan, mode)
        print(*launch.said(plan, todo), sep="\n", file=sys.stderr, flush=True)
        if mode in ("plan", "read_only"):
            return
        if mode == "force":
            launch.forget(plan, todo)
        room = Room.here(self.jobs_per_gpu)
        at_once = self.jobs or max(room.cores, len(room.gpus) * self.jobs_per_gpu)
        jobs = launch.named(todo.jobs(plan, self.cells_per_job or math.ceil(len(todo.cells) / (4 * at_once)) or 1))
        if not jobs:
            return
        cwd = Path(plan.hydra["runtime"]["cwd"])
        configs = [Path(source["path"]) for source in plan.hydra["runtime"]["config_sources"] if source["path"]]
        source = snapshot.take(plan.folder, cwd, tuple(path for path in configs if path.is_absolute()))
        pool = Pool(plan, jobs, source, Follow(plan, self.retries), room, self.jobs)
        launched = launch.local(plan, jobs)
        try:
            with LiveView(plan) as view:
                watch = Watch(plan)
                pool.run(lambda: view.show(watch.look()))
        finally:
            with suppress(ValueError):
                launched.end(plan.folder)
