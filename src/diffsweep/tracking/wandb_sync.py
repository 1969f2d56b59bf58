"""W&B runs made from our own files: what `diffsweep wandb-sync` does.

A run that was killed offline has lost its last rows, or all; its metrics.jsonl has not. The ids are those of the runs
that the trainings themselves have opened, and W&B is asked what it has: only what it lacks is logged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffsweep.messages import print_lines, say
from diffsweep.report.status import find, sweeps
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.store import query
from diffsweep.sweep.store.lease import Lease
from diffsweep.sweep.store.record import AutoencoderRecord, Cell, Fit, TrainingRecord, read_metrics
from diffsweep.sweep.store.result import Result
from diffsweep.tracking.loggers import show_training
from diffsweep.tracking.record_values import digest
from diffsweep.tracking.run_info import RunInfo
from diffsweep.tracking.wandb_folder import read_note
from diffsweep.tracking.wandb_run import OFFLINE, WandbRun
from diffsweep.tracking.wandb_server import server_and_project
from diffsweep.tracking.wandb_settings import WandbSettings


@dataclass(frozen=True)
class SyncItem:
    """What is trained, or a cell, to make a W&B run of, with its resolved config."""

    record: TrainingRecord | Cell
    info: RunInfo
    config: Mapping[str, object]


@dataclass(frozen=True)
class Destination:
    """What the command line says about where runs are shown; what it does not say is in each run's config.

    Attributes:
        mode: "online" or "offline".
        project: W&B project; None for that of each run's config, or diffsweep.
        entity: W&B team or user; likewise.
    """

    mode: str
    project: str | None = None
    entity: str | None = None

    def settings(self, config: Mapping[str, object]) -> WandbSettings:
        """The settings of a run with this config."""
        own = WandbSettings.of(config) or WandbSettings()
        project, entity = self.project or own.project, self.entity or own.entity
        return replace(own, mode=self.mode, project=project, entity=entity)


def sync(runs: Path, name: str | None, destination: Destination) -> int:
    """Make the W&B runs of a sweep, of a fit with its cells, of a cell, or of everything below `runs`.

    Args:
        runs: folder of the runs.
        name: of a sweep, its beginning, or `last`; signature of a fit or cell; None for everything.
        destination: where they are shown.

    Returns:
        The exit code: 0, or 1 if W&B did not take something.

    Raises:
        ValueError: if nothing is called so.
    """
    plan = _plan(runs, name)
    items = list(_items_of_plan(plan) if plan is not None else _items_below(runs, name))
    if not items:
        named = f" called {name}" if name else ""
        raise ValueError(f"{runs} has no sweep, fit or cell{named}: diffsweep status lists the sweeps")
    failed = False
    for item in items:
        outcome = _sync(item, destination.settings(item.config))
        failed = failed or outcome == "failed"
        print_lines(f"{item.info.kind:<5} {item.info.signature}  {item.info.name}: {outcome}")
    if plan is not None:
        from diffsweep.tracking.wandb_summary import summarise

        outcome = summarise(plan, destination.settings(items[0].config))
        failed = failed or outcome == "failed"
        print_lines(f"summary {plan.name}: {outcome}")
    return int(failed)


def _plan(runs: Path, name: str | None) -> Plan | None:
    if name is None:
        return None
    # A signature may be the beginning of no sweep's name, but a path or `last` may be one.
    known = name == "last" or any(path.name.startswith(name) for path in sweeps(runs))
    return Plan.read(find(runs, name)) if known or (Path(name) / "plan.json").is_file() else None


def _items_of_plan(plan: Plan) -> Iterator[SyncItem]:
    for name, cells in plan.autoencoders.items():
        record, config = plan.training(name), plan.config(cells[0])
        info = RunInfo.of("autoencoder", record.folder, config, plan.run(cells[0]).choices, plan.name)
        yield SyncItem(record, info, config)
    for cells in plan.fits.values():
        # What another sweep has made is shown there.
        results = {name: plan.cell(name).result() for name in cells}
        groups = {name: result.sweep or plan.name if result else plan.name for name, result in results.items()}
        run, config = plan.run(cells[0]), plan.config(cells[0])
        yield SyncItem(run.fit, RunInfo.of("fit", run.fit.folder, config, run.choices, groups[cells[0]]), config)
        for name in cells:
            run, config = plan.run(name), plan.config(name)
            yield SyncItem(run.cell, RunInfo.of("cell", run.cell.folder, config, run.choices, groups[name]), config)


def _items_below(runs: Path, name: str | None) -> Iterator[SyncItem]:
    for folder in sorted((runs / "autoencoders").glob("*/")):
        record = AutoencoderRecord(folder)
        if name in (None, record.signature) and record.config_file.exists():
            config, note = _config(record), read_note(folder)
            info = RunInfo.of("autoencoder", folder, config, note.get("choices") or {}, note.get("group"))
            yield SyncItem(record, info, config)
    results: dict[str, list[Result]] = {}
    for result in query.results(runs):
        results.setdefault(result.fit, []).append(result)
    for record in query.fits(runs):
        fit = Fit(runs / "fits" / str(record["fit"]))
        cells = results.get(fit.signature, [])
        if name not in (None, fit.signature, *(cell.cell for cell in cells)):
            continue
        if name in (None, fit.signature) and fit.config_file.exists():
            config, note = _config(fit), read_note(fit.folder)
            choices = cells[0].options if cells else note.get("choices") or {}
            group = (cells[0].sweep if cells else None) or note.get("group")
            yield SyncItem(fit, RunInfo.of("fit", fit.folder, config, choices, group), config)
        for result in cells:
            cell = fit.cell(result.cell)
            if name in (None, fit.signature, cell.signature):
                config = _config(cell)
                yield SyncItem(cell, RunInfo.of("cell", cell.folder, config, result.options, result.sweep), config)


def _config(record: TrainingRecord | Cell) -> dict[str, Any]:
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(record.frozen_config())
    return plain


def _sync(item: SyncItem, settings: WandbSettings) -> str:
    """Log what W&B lacks of a record; returns the outcome in words."""
    record, folder = item.record, item.info.folder
    result = record.result()
    done = result.values if isinstance(result, Result) else result
    rows = read_metrics(record.metrics_file) if isinstance(record, TrainingRecord) else []
    if done is not None and done.get("external") and isinstance(record, Fit):
        return "nothing was trained"
    if done is None and not rows:
        return "not done yet"
    if Lease(folder).holder() is not None:
        return "is being worked on: its own process writes the W&B run"
    note, content = read_note(folder), digest(done) if done is not None else None
    if content is not None and note.get("record") == content:
        kept = settings.mode == "offline" and (folder / "wandb" / str(note.get("run"))).exists()
        if kept or note.get("where") == server_and_project(settings):
            return "complete already"
    run = WandbRun.open(item.info, settings, quiet=True, fall_back=False)
    if run is None:
        return "failed"
    if content is not None and run.complete_for == content:
        run.complete(content)
        return "complete already" if run.close() else "failed"
    for row in rows:
        run.log_row({key: value for key, value in row.items() if key != "step" and value is not None}, row["step"])
    if isinstance(record, Cell):
        assert isinstance(result, Result)
        run.log_result(result, record.samples_file)
    elif done is not None:
        show_training(run, record, settings)
    whole = run.close(failed=done is None, preempted=done is None, rows=rows)
    if run.sync_command:
        say(f"W&B is offline; to send this run: {run.sync_command}")
    logged = sum(row["step"] >= run.first for row in rows)
    outcome = f"{logged} of {len(rows)} rows logged" if isinstance(record, TrainingRecord) else "logged"
    return "failed" if not whole else outcome + (f" ({OFFLINE})" if run.offline else "")
