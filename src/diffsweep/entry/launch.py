"""The launch of a sweep: making its plan, starting its jobs with a launcher, returning results to the sweeper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffsweep.entry import sweep_end
from diffsweep.entry.check import refuse_impossible
from diffsweep.messages import print_lines, say
from diffsweep.mistakes import is_mistake
from diffsweep.sweep.execute.local_pool import MachineResources
from diffsweep.sweep.plan import prepare
from diffsweep.sweep.plan.hydra_job import job_return
from diffsweep.sweep.plan.jobs import LaunchRecord, RemainingWork
from diffsweep.sweep.plan.mode import Mode
from diffsweep.sweep.plan.plan import Plan

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.utils import JobReturn
    from omegaconf import DictConfig

Start = Callable[[Plan, RemainingWork], None]


def launch(
    start: Start,
    loader: ConfigLoader,
    config: DictConfig,
    batch: Sequence[Sequence[str]],
    first: int,
    *,
    here: bool = True,
) -> list[JobReturn]:
    """Plan and run `batch`, whose first task has the number `first`, with `start` for the jobs; one return per task.

    `here`: whether the jobs run on this machine. A failed task is in what is returned and raises nothing. Raises
    KeyboardInterrupt, and for a user's mistake what `mistakes.is_mistake` knows, before anything runs: every cell is
    checked as a single run is.
    """
    try:
        plan, mode = prepare.make_plan(loader, config, batch, first), Mode.of(config)
        try:
            if mode.runs_jobs or mode.shows_plan:
                # Where there are GPUs, whoever shares them out among the jobs knows whether they are enough.
                no_gpus = not MachineResources.detect().gpus
                refuse_impossible(plan, RemainingWork.of(plan, mode).cells, devices=here and mode.runs_jobs and no_gpus)
            run(plan, mode, start)
        except ValueError:
            prepare.withdraw(plan)
            raise
    except Exception as error:
        if is_mistake(error):
            # It has not begun, so there is nothing to show.
            sweep_end.forget()
        raise
    return [job_return(plan, task) for task in plan.tasks if task.num >= first]


def run(plan: Plan, mode: Mode, start: Start) -> None:
    """Run, show or prefetch `plan` under the reuse policy `mode`. Raises ValueError, KeyboardInterrupt."""
    remaining = RemainingWork.of(plan, mode)
    starts = mode.runs_jobs and remaining.cells
    # The live view of a sweep that starts begins with a heading of its own.
    for line in [*([] if starts else [prepare.heading(plan, remaining)]), *prepare.notes(plan, remaining)]:
        say(line)
    if mode.shows_plan:
        from diffsweep.report.plan_table import show_plan

        show_plan(plan, remaining)
    elif mode.fetches_data:
        fetch(plan)
    elif starts:
        if mode.forces:
            prepare.reset(plan, remaining)
        start(plan, remaining)


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
            print_lines(prefetch(OmegaConf.create(plan.config(cell))))


def resume(folder: Path, n_trials: int | None = None) -> bool:
    """Do the rest of the sweep in `folder`, with the launcher that it had; returns whether all is finished then.

    The configs are those that were planned; the code is that of now. `n_trials`: of a search, how many trials it shall
    have in the end, if more than before. Raises ValueError if there is no sweep, or a living process is at it.
    """
    from hydra.utils import instantiate

    from diffsweep.sweep.search.search import Search, is_search

    if is_search(folder):
        from diffsweep.entry.trial import Worker
        from diffsweep.sweep.search import supervisor

        search = Search.read(folder)
        launcher = instantiate(dict(search.composition.hydra["launcher"]))
        code = supervisor.resume(folder, launcher, Worker, n_trials)
        return sweep_end.show(search.folder, search.runs) and code == 0
    if n_trials is not None:
        raise ValueError(f"--trials {n_trials}: {folder.name} is a sweep, and only a search has trials")
    plan = Plan.read(folder)
    launch_record = LaunchRecord.read(folder)
    process = launch_record.launcher if launch_record is not None else None
    if process is not None and process.alive():
        raise ValueError(f"sweep {plan.name} is being run by {process}: nothing to resume")
    launcher = instantiate(dict(plan.hydra["launcher"]))
    finished = False
    try:
        run(plan, Mode.RETRY, launcher.start)
    finally:
        finished = sweep_end.show(plan.folder, plan.runs)
    return finished
