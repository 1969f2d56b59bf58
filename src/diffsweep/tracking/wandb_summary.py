"""A sweep as one W&B run: its leaderboard with pictures, its plots; and, online, a saved workspace and a report.

Only sweeps whose runs were logged to W&B have one. W&B may fail at any of it; the sweep does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diffsweep.files import read_json, write_json
from diffsweep.messages import say
from diffsweep.report import statistics
from diffsweep.report.comparison import tables
from diffsweep.report.factors import factors
from diffsweep.report.live import Names
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.store.result import GROUPS, Result
from diffsweep.tracking.record_values import digest
from diffsweep.tracking.run_info import RunInfo
from diffsweep.tracking.wandb_folder import read_note
from diffsweep.tracking.wandb_run import OFFLINE, WandbRun
from diffsweep.tracking.wandb_server import server_and_project
from diffsweep.tracking.wandb_settings import WandbSettings

# Larger tables are cut by W&B anyway, and pictures are sent one by one.
_ROWS = 10_000
_PICTURES = 500

_COLUMNS = ["rank", "best or tied", "name", *GROUPS, "nfe", "metric", "value", "low", "high", "floor"]
_SPENT = ["sample_seconds", "fit_seconds", "parameters", "cell", "fit"]


def settings_of(plan: Plan) -> WandbSettings | None:
    """The W&B settings of a sweep's runs: those of its first cell that has any; None if there are none."""
    for cell in plan.cells:
        settings = WandbSettings.of(plan.config(cell))
        if settings is not None:
            return settings
    return None


def summarise(plan: Plan, settings: WandbSettings) -> str:
    """Make the W&B run of a sweep's summary, unless W&B has it; returns the outcome in a word. Never raises."""
    try:
        return _summarise(plan, settings)
    except Exception as error:
        say(f"W&B: no summary of sweep {plan.name}: {' '.join(str(error).split())[:300]}")
        return "failed"


def _summarise(plan: Plan, settings: WandbSettings) -> str:
    results = {cell: result for cell in plan.cells if (result := plan.cell(cell).result()) is not None}
    if not results:
        return "no cell is finished"
    config = {"sweep": plan.name, "command": plan.command, "cells": len(plan.cells), "fits": len(plan.fits)}
    info = RunInfo("sweep summary", summary_id(plan.name), plan.folder, f"{plan.name} summary", plan.name, config)
    content = digest({cell: digest(result.values) for cell, result in results.items()})
    note = read_note(plan.folder)
    kept = note.get("where") == OFFLINE and settings.mode != "online"
    if note.get("record") == content and (kept or note.get("where") == server_and_project(settings)):
        return "complete already"
    run = WandbRun.open(info, settings, quiet=True, fall_back=settings.mode != "online")
    if run is None:
        return "failed"
    if run.complete_for == content:
        run.complete(content)
    else:
        try:
            run.log_tables(_tables(plan, list(results.values())), content)
        except Exception:
            run.close(failed=True)
            raise
    if not run.close():
        return "failed"
    if run.offline:
        folders = [
            *(plan.run(cells[0]).fit.folder for cells in plan.fits.values()),
            *(plan.cell(cell).folder for cell in results),
        ]
        unsent = [folder for folder in folders if read_note(folder).get("where") == OFFLINE]
        say(f"W&B is offline; to send these {len(unsent) + 1} runs: {plan.command_for('wandb-sync')}")
        return "logged (offline)"
    say(f"W&B: {run.run.url}")
    for kind, url in saved_views(plan, list(results.values()), str(run.run.entity), settings.project).items():
        say(f"W&B {kind}: {url}")
    return "logged"


def summary_id(sweep: str) -> str:
    """The id of a sweep's summary in W&B. Sweeps whose names differ in what is not allowed there do not share one."""
    name = f"summary-{re.sub('[^A-Za-z0-9_-]', '-', sweep)}"
    return name if len(name) <= 64 and name.endswith(sweep) else f"{name[:51]}-{digest({'sweep': sweep})}"


def ranking(results: Sequence[Result]) -> list[tuple[int | None, bool, Result]]:
    """(rank, whether it cannot be told from the best, result), best first; numbers measured differently in turn."""
    rows: list[tuple[int | None, bool, Result]] = []
    for group in tables(results).values():
        ties = {id(result) for result in statistics.ties_with_best(group, group[0].metric)}
        for place, result in enumerate(group, start=1):
            rows.append((None if result.lost else place, id(result) in ties, result))
    return rows


def _tables(plan: Plan, results: list[Result]) -> dict[str, Any]:
    import wandb

    names, rows = Names.of(plan), ranking(results)
    leaderboard = wandb.Table(columns=[*_COLUMNS, *_SPENT, "samples"])
    for index, (rank, tied, result) in enumerate(rows[:_ROWS]):
        main, cell = result.main, plan.cell(result.cell)
        picture = None
        if index < _PICTURES and cell.samples_file.exists():
            picture = wandb.Image(str(cell.samples_file))
        leaderboard.add_data(
            rank,
            tied,
            names.cells[result.cell],
            *map(result.option, GROUPS),
            _float(result.nfe),
            main.name,
            *(main.value, main.low, main.high, main.floor),
            *map(_float, (result.sample_seconds, result.fit_seconds, result.parameters)),
            *(result.cell, result.fit),
            picture,
        )
    return {"leaderboard": leaderboard, **_plots([result for _, _, result in rows], names)}


def _plots(results: Sequence[Result], names: Names) -> dict[str, Any]:
    """Of the cells that are measured as most are: the distance of each, against network calls and against seconds."""
    import wandb

    alike = next(iter(tables(results).values()))
    main, found = alike[0].metric, [result for result in alike if not result.lost]
    if not found:
        return {}

    def of(column: str, cost: Callable[[Result], float | None]) -> Any:
        # Not one table for all plots: W&B gives each to the first that shows it.
        named: Any = [[names.cells[one.cell], one.value(main), _float(cost(one))] for one in found]
        return wandb.Table(columns=["name", main, column], data=named)

    plots = {"cells": wandb.plot.bar(of("nfe", lambda one: one.nfe), "name", main, title=f"{main} of each cell")}
    if len({one.nfe for one in found}) > 1:
        curves: dict[str, list[tuple[float, float]]] = {}
        varying = {name: options for name, options in factors(found).items() if name != "sampler.nfe"}
        for index, one in enumerate(found):
            label = " ".join(options[index] for options in varying.values()) or main
            curves.setdefault(label, []).append((one.nfe or 0, one.value(main) or 0.0))
        lines = {label: sorted(points) for label, points in sorted(curves.items())}
        plots["against_nfe"] = wandb.plot.line_series(
            [[x for x, _ in points] for points in lines.values()],
            [[y for _, y in points] for points in lines.values()],
            keys=list(lines),
            title=f"{main} against network calls",
            xname="nfe",
        )
    seconds = of("seconds", lambda one: one.sample_seconds)
    plots["against_seconds"] = wandb.plot.scatter(seconds, "seconds", main, title=f"{main} against seconds of sampling")
    return plots


def saved_views(plan: Plan, results: Sequence[Result], entity: str, project: str) -> dict[str, str]:
    """URLs of the sweep's saved workspace and report, made once in a project; none without wandb-workspaces, or if W&B
    refuses.
    """
    links: Path = plan.folder / "wandb" / "links.json"
    found: dict[str, str] = {}
    try:
        from diffsweep.tracking.wandb_workspace import report, workspace

        known = read_json(links) or {}
        found = known.setdefault(f"{entity}/{project}", {})
        for kind, make in (("workspace", workspace), ("report", report)):
            if kind not in found:
                made = make(entity, project, plan.name, results)
                made.save()
                found[kind] = str(made.url)
                write_json(links, known)
    except ImportError:
        say("W&B: `pip install wandb-workspaces` adds a saved comparison and a report")
    except Exception as error:
        say(f"W&B: no saved comparison: {' '.join(str(error).split())[:300]}")
    return found


def _float(value: float | None) -> float | None:
    # A column of a W&B table has one type.
    return None if value is None else float(value)
