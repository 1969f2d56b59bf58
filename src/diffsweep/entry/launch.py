"""What every launcher does around its own way of running jobs: plan, answer what needs no job, hand back results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffsweep.entry import sweep_end
from diffsweep.mistakes import is_mistake
from diffsweep.sweep.plan import prepare as sweep
from diffsweep.sweep.plan.hydra_job import returned
from diffsweep.sweep.plan.jobs import Launched, Todo
from diffsweep.sweep.plan.plan import Plan

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.utils import JobReturn
    from omegaconf import DictConfig

Start = Callable[[Plan, Todo], None]


def launch(
    start: Start, loader: ConfigLoader, config: DictConfig, batch: Sequence[Sequence[str]], first: int
) -> list[JobReturn]:
    """Plan and run `batch`, whose first task has the number `first`, with `start` for the jobs; one return per task.

    A failed task is in what is returned and raises nothing. Raises KeyboardInterrupt, and for a user's mistake what
    `mistakes.is_mistake` knows, before anything runs.
    """
    try:
        plan = sweep.begin(loader, config, batch, first)
        try:
            run(plan, sweep.mode(config), start)
        except ValueError:
            sweep.withdraw(plan)
            raise
    except Exception as error:
        if is_mistake(error):
            # It has not begun, so there is nothing to show.
            sweep_end.forget()
        raise
    return [returned(plan, task) for task in plan.tasks if task.num >= first]


def run(plan: Plan, mode: str, start: Start) -> None:
    """Do with `plan` what `mode` says: see conf/config.yaml. Raises ValueError, KeyboardInterrupt."""
    todo = Todo.of(plan, mode)
    starts = mode not in ("plan", "prefetch", "read_only") and todo.cells
    # Whoever shows how a sweep goes on begins with a heading of its own.
    for line in [*([] if starts else [sweep.heading(plan, todo)]), *sweep.notes(plan, todo)]:
        print(line, file=sys.stderr, flush=True)
    if mode == "plan":
        from diffsweep.report.plan_table import show_plan

        show_plan(plan, todo)
    elif mode == "prefetch":
        fetch(plan)
    elif starts:
        if mode == "force":
            sweep.forget(plan, todo)
        start(plan, todo)


def fetch(plan: Plan) -> None:
    """Fetch and compute what the plan's cells need of real data, each thing once. Raises ValueError."""
    from omegaconf import OmegaConf

    from diffsweep.runs.prefetch import prefetch

    seen: set[tuple[str | None, ...]] = set()
    for cell, task in plan.cells.items():
        # Parts that are equal have one name; of the evaluation only the extractor counts, but it is a part of it.
        key = (task.config.get("dataset"), str((plan.part(cell, "evaluation") or {}).get("extractor")))
        if key not in seen:
            seen.add(key)
            print(prefetch(OmegaConf.create(plan.config(cell))), flush=True)


def resume(folder: Path) -> bool:
    """Do what the sweep in `folder` lacks, as it was launched; returns whether all is finished then.

    The configs are those that were planned; the code is that of now. Raises ValueError if there is no sweep, or a
    living process is at it.
    """
    from hydra.utils import instantiate

    from diffsweep.sweep.search.study import is_search

    if is_search(folder):
        from diffsweep.entry.trial import Worker
        from diffsweep.sweep.search import supervisor

        return supervisor.resume(folder, Worker) == 0
    plan = Plan.read(folder)
    launched = Launched.read(folder)
    process = launched.launcher if launched is not None else None
    if process is not None and process.alive():
        raise ValueError(f"sweep {plan.name} is being run by {process}: nothing to resume")
    launcher = instantiate(dict(plan.hydra["launcher"]))
    finished = False
    try:
        run(plan, "retry", launcher.start)
    finally:
        finished = sweep_end.show(plan.folder, plan.runs)
    return finished
