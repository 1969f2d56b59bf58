"""One table at the end of a sweep, whichever launcher ran its jobs and however many of them failed.

Our own launchers leave a plan in the sweep's folder; under any other each job leaves a note that names its cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from diffsweep import caller
from diffsweep.messages import say
from diffsweep.mistakes import one_line
from diffsweep.report import export, page, terminal
from diffsweep.report.comparison import Comparison
from diffsweep.report.failure import Failure
from diffsweep.report.live import Names
from diffsweep.report.search_data import search_data
from diffsweep.sweep.plan.hydra_job import failure_reason
from diffsweep.sweep.plan.jobs import LaunchRecord
from diffsweep.sweep.plan.mode import Mode
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.search.search import is_search
from diffsweep.sweep.status.monitor import Monitor
from diffsweep.sweep.store.override_words import joined, option_folders
from diffsweep.sweep.store.record import Cell, read_json
from diffsweep.sweep.store.result import GROUPS, Result

# Groups whose options are methods that somebody has published.
_METHODS = (*GROUPS, "optimizer", "extractor")

_last: list[tuple[Path, Path]] = []


class SweepTable(Callback):
    """Remembers the sweep that is started, so that its table can be shown even if Hydra raises for a failed job."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        # Where these cannot be told, whoever launches the sweep says why.
        with suppress(OmegaConfBaseException):
            remember(Path(config.hydra.sweep.dir), Path(config.paths.runs))


def remember(folder: Path, runs: Path) -> None:
    """Remember the sweep that this process runs: its folder, which a named study chooses itself, and that of runs."""
    _last[:] = [(folder, runs)]
    caller.tell(folder=str(folder.absolute()), runs=str(runs.absolute()))


def forget() -> None:
    """Forget the sweep that was to be launched, for it was refused."""
    _last.clear()


def show_last() -> bool:
    """Show the table of the sweep that this process launched, if it launched one; returns whether all is finished."""
    finished = True
    while _last:
        folder, runs = _last.pop()
        finished &= show(folder, runs)
    return finished


def show(folder: Path, runs: Path) -> bool:
    """Write table.csv and report.html of the sweep in `folder`, show the table, and say what to do next.

    Returns whether every cell is finished. Cells of jobs that go on without this process, as in a detached sweep, count
    as finished.
    """
    plan = Plan.read(folder) if (folder / "plan.json").exists() else None
    about = comparison(folder, runs, plan)
    written = True
    results, failures = about.results, about.failures
    if results or failures:
        terminal.show_sweep(results, failures, runs=runs)
    if results:
        table, report = folder / "table.csv", folder / "report.html"
        try:
            export.write(results, "csv", table)
        except (ValueError, OSError) as error:
            written = False
            say(f"no table.csv: {one_line(error)}")
        if failures or _older(report, about):
            try:
                page.write(about, report)
            except (ValueError, OSError) as error:
                # The results stand without it.
                say(f"no report.html: {one_line(error)}")
        terminal.show_where(results, table, report, runs=runs)
    if failures and plan:
        terminal.show_resume(plan.command_for("resume"))
    if results and plan and len(results) + len(failures) == len(plan.cells):
        _show_in_wandb(plan)
    return not failures and written


def _goes_on(plan: Plan) -> bool:
    """Whether jobs of a sweep may run without this process: those of another launcher, or in SLURM's queue."""
    try:
        launch = LaunchRecord.read(plan.folder)
    except (ValueError, KeyError, TypeError):
        return False
    if launch is None or launch.ended:
        return False
    if launch.launcher is None or launch.launcher.alive() is False:
        return launch.kind == "slurm"
    return not launch.launcher.is_current()


def _older(report: Path, about: Comparison) -> bool:
    """Whether a report was made before some of its results, or not at all."""
    try:
        made = report.stat().st_mtime
        cells = (Cell.of(result, about.runs) for result in about.results)
        return any(cell.result_file.stat().st_mtime >= made for cell in cells)
    except OSError:
        return True


def comparison(folder: Path, runs: Path, plan: Plan | None) -> Comparison:
    """The results of a sweep, and the cells that have none, unless a job that goes on may still give it."""
    results: dict[str, Result] = {}
    failures: list[Failure] = []
    goes_on = plan is not None and _goes_on(plan)
    for one in _planned_cells(plan, goes_on) if plan else _foreign_cells(folder):
        try:
            result = Cell.of(one, runs).result() if one.cell else None
        except OSError as error:
            reason = f"its result cannot be read: {error.strerror or error}"
            result, one = None, Failure(one.fit, one.cell, one.overrides, reason=reason)
        if result is not None:
            # A cell that was there already was made by another command, with fewer or more overrides.
            results[result.cell] = result.replace(overrides=one.overrides or result.overrides)
        elif isinstance(one, Failure):
            failures.append(one)
    configs = {cell: plan.config(cell) for cell in results} if plan else None
    search = None
    if is_search(folder):
        # The results stand without it.
        with suppress(OSError, ValueError):
            search = search_data(folder)
    return Comparison(
        folder.name,
        runs,
        list(results.values()),
        failures,
        command=plan.command if plan else "",
        configs=configs,
        search=search,
        options=frozenset(option for cell in results for option in _options(plan, cell)) if plan else frozenset(),
    )


def _options(plan: Plan, cell: str) -> Iterator[str]:
    """What a cell is made of and measured by, whether it was typed or is a default."""
    for group, option in plan.run(cell).choices.items():
        if group.partition("/")[0] in _METHODS:
            yield f"{group}={option}"
    for metric in (plan.part(cell, "evaluation") or {}).get("metrics") or ():
        yield f"metric={metric}"


def _show_in_wandb(plan: Plan) -> None:
    """Tell W&B of a sweep that is over, if its runs are shown there."""
    runs_jobs = any(Mode.of({"mode": plan.part(cell, "mode") or "retry"}).runs_jobs for cell in plan.cells)
    if runs_jobs and any((plan.part(cell, "logger") or {}).get("wandb") for cell in plan.cells):
        from diffsweep.tracking.wandb_summary import settings_of, summarise

        settings = settings_of(plan)
        if settings is not None:
            summarise(plan, settings)


@dataclass(frozen=True)
class _Pending:
    """A cell that is finished, or that somebody is at."""

    fit: str
    cell: str
    overrides: str


def _planned_cells(plan: Plan, goes_on: bool) -> Iterator[Failure | _Pending]:
    """Every cell of a plan, with why it has no result; `goes_on` says whether its jobs may run without this process."""
    state, names = Monitor(plan, poll_seconds=0).read(), Names.of(plan)
    for cell, task in plan.cells.items():
        item, overrides = state.cells[cell], joined([*option_folders(plan.hydra), *task.overrides])
        if item.state == "done" or (goes_on and item.state in ("running", "waiting")):
            yield _Pending(task.fit, cell, overrides)
            continue
        outcome = item.state if item.state in ("failed", "blocked") else "missing"
        reason = item.reason or failure_reason(plan.run(cell))
        yield Failure(task.fit, cell, overrides, names.cells[cell], outcome, reason, item.log)


def _foreign_cells(folder: Path) -> Iterator[Failure]:
    """What the jobs of another launcher noted: every cell may be one that has failed."""
    for path in sorted((folder / "jobs").glob("*.json"), key=lambda path: int(path.stem)):
        note = read_json(path) or {}
        fit, cell, overrides, reason = (str(note.get(key) or "") for key in ("fit", "cell", "overrides", "reason"))
        yield Failure(fit, cell, overrides, reason=reason)
