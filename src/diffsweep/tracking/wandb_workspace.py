"""Saved views of a sweep in W&B: panels by group, curves over network calls, pictures side by side.

Made by wandb-workspaces, an optional package. A `workspace` can be built without login; a `report` cannot, for its sets
of runs ask for the project's id.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from diffsweep.report import statistics
from diffsweep.report.factors import factors
from diffsweep.report.protocol import protocol_of
from diffsweep.sweep.store.result import CHOICES, GROUPS, Result, larger_is_better
from diffsweep.tracking.wandb_run import GRID
from diffsweep.tracking.wandb_settings import LONGEST


def workspace(entity: str, project: str, sweep: str, results: Sequence[Result]) -> Any:
    """A saved view of a project that shows one sweep; a `wandb_workspaces.workspaces.Workspace`, not saved yet.

    Args:
        entity: W&B team or user.
        project: W&B project.
        sweep: name of the sweep, which is the group of its runs.
        results: its finished cells.
    """
    ws = import_module("wandb_workspaces.workspaces")

    main, panels = _main(results), _panels(results)
    shown = [f"config:{group}" for group in GROUPS]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"diffsweep {sweep}"[:LONGEST],
        sections=[ws.Section(name=name, panels=panels[name], is_open=True) for name in panels],
        settings=ws.WorkspaceSettings(x_axis="step", max_runs=100),
        runset_settings=ws.RunsetSettings(
            filters=ws.And(ws.Metric("Group") == sweep[:LONGEST]),
            order=[ws.Ordering(ws.Summary(main), ascending=not larger_is_better(main))],
            pinned_columns=["run:displayName", *shown, f"summary:{main}", "summary:nfe"],
        ),
    )


def report(entity: str, project: str, sweep: str, results: Sequence[Result]) -> Any:
    """The same as a page with words; a `wandb_workspaces.reports.v2.Report`, not saved yet. Arguments as `workspace`.

    Raises:
        Exception: of W&B, without login.
    """
    wr, expr = import_module("wandb_workspaces.reports.v2"), import_module("wandb_workspaces.expr")
    main = _main(results)
    best = min(results, key=lambda result: statistics.rank(result, main))
    alike = [one for one in results if protocol_of(one) == protocol_of(best)]
    ties, value = len(statistics.ties_with_best(alike, main)), best.value(main)
    number = f"{main} {value:.4g}" if value is not None else "no cell has finite samples"
    choices = ", ".join(f"{group}={best.option(group)}" for group in CHOICES)
    # The panels follow what is logged later; these words do not.
    now = time.strftime("%Y-%m-%d at %H:%M UTC", time.gmtime())
    blocks: list[Any] = [
        wr.MarkdownBlock(
            f"{len(results)} finished cells on {now}. Best: {choices} with {number}"
            + (f"; {ties - 1} more cannot be told from it." if ties > 1 else ".")
        )
    ]
    for name, panels in _panels(results).items():
        mine = expr.And(expr.Metric("Group") == sweep[:LONGEST])
        runset = wr.Runset(entity=entity, project=project, name=sweep, filters=mine)
        blocks += [wr.H2(name), wr.PanelGrid(runsets=[runset], panels=panels)]
    return wr.Report(entity=entity, project=project, title=f"diffsweep {sweep}"[:LONGEST], width="fluid", blocks=blocks)


def _main(results: Sequence[Result]) -> str:
    mains = [result.metric for result in results]
    return max(sorted(set(mains)), key=mains.count)


def _panels(results: Sequence[Result]) -> dict[str, list[Any]]:
    """Panels by section. A group that does not vary has no bars of its own."""
    wr = import_module("wandb_workspaces.reports.v2")

    main = _main(results)
    varying = [group for group in GROUPS if len({result.option(group) for result in results}) > 1]
    bars = [wr.BarPlot(title=f"{main} by {group}", metrics=[main], groupby=wr.Config(group)) for group in varying]
    # Named as the config of a run is; how many calls a cell took is a number of its own.
    turned = [name.replace(".", "/") for name in factors(results) if name != "sampler.nfe"]
    columns = [
        *(wr.ParallelCoordinatesPlotColumn(metric=wr.Config(name)) for name in turned),
        *(wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(name)) for name in ("nfe", main)),
    ]
    scatters = [
        wr.ScatterPlot(title=f"{main} against {what}", x=wr.SummaryMetric(key), y=wr.SummaryMetric(main), **logarithmic)
        for key, what, logarithmic in (
            ("nfe", "network calls", {"log_x": True}),
            ("sample_seconds", "seconds of sampling", {}),
        )
    ]
    return {
        "Groups": [*bars, wr.ParallelCoordinatesPlot(title="All choices", columns=columns)],
        "Cost": scatters,
        "Pictures": [wr.MediaBrowser(title="Samples from the same noise", media_keys=[GRID], num_columns=4)],
        "Training": [
            wr.LinePlot(title=title, x="step", y=[key], log_y=key == "gradient_norm")
            for key, title in (("loss", "Loss"), ("gradient_norm", "Gradient norm"), ("lr", "Learning rate"))
        ],
        "Settings": [wr.RunComparer(diff_only="split")],
    }
