"""`diffsweep report`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diffsweep.commands.values import whole
from diffsweep.entry import sweep_end
from diffsweep.report import page
from diffsweep.report.fill_defaults import spelled
from diffsweep.report.status import find
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.store import query
from diffsweep.sweep.store.process import import_from
from diffsweep.sweep.store.record import Cell

# Of a report: cells that are animated, and samples of each.
_ANIMATED, _NOISES = 24, 16


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("filters", nargs="+", metavar="SWEEP", help="its name, or conditions as for `results`")
    parser.add_argument("--metric", metavar="NAME", help="rank by this number instead of the main one")
    parser.add_argument("--out", metavar="FILE", help="where to (default: report.html of the sweep, or here)")
    parser.add_argument(
        "--animate", metavar="N", type=whole, default=0, help="show how the first N samples of the best cells arise"
    )


def run(asked: argparse.Namespace) -> int:
    """Write one HTML page that needs no network: who won, by how much, what it looks like, and what it cost.

    Every sweep writes its own at its end. SWEEP is its name, the beginning of it, or last; or conditions on columns, as
    for `diffsweep results`, for a page about results of several sweeps.

    With --animate 4 the page also shows, for the best 24 cells, what the samplers make of the first 4 starting noises,
    step by step; that draws them anew, without training, and makes the page larger: of 8 x 8 pixels each by 10 kB a
    cell, of 28 x 28 by 50 kB.
    """
    runs = Path(asked.runs)
    if len(asked.filters) == 1 and not any(sign in asked.filters[0] for sign in "=<>"):
        folder = find(runs, asked.filters[0])
        about, file = sweep_end.subject(folder, runs, Plan.read(folder)), folder / "report.html"
    else:
        chosen = query.select(query.results(runs, jackknife=True), asked.filters, runs)
        alike = spelled(chosen, lambda result: Cell.of(result, runs).config())
        about, file = page.Subject(" ".join(asked.filters), runs, alike), Path("report.html")
    if not about.results and not about.failures:
        raise ValueError(f"nothing to report: no finished run passes {' '.join(asked.filters)}")
    if asked.animate:
        about = replace(about, motions=_motions(page.best_first(about, asked.metric), asked.animate, runs))
    file = Path(asked.out) if asked.out else file
    page.write(about, file, asked.metric)
    print(file)
    return 0


def _motions(ranked: Sequence[Mapping[str, Any]], count: int, runs: Path) -> dict[str, dict[str, Any]]:
    """Cell -> how its first `count` samples come about, of the first cells of `ranked` that have a model."""
    if count > _NOISES:
        raise ValueError(f"--animate {count} is too much for one page: at most {_NOISES}")
    import_from(Path.cwd())
    from diffsweep import results
    from diffsweep.report.animation import motion
    from diffsweep.runs import resample

    own = [result for result in ranked if result.get("images") is None][:_ANIMATED]
    found = {}
    for result in tqdm(own, "animating", unit="cell", disable=None, leave=False):
        cell = Cell.of(result, runs)
        try:
            what = results.asked(cell)
            # Of a few points nobody sees where they go.
            flat = len(what.cfg.dataset.get("shape") or ()) == 1
            drawn = resample.redraw(
                what.cfg, what.fit, resample.POINTS if flat else count, seed=what.seed, follow=True, show=False
            )
        except ValueError as error:
            print(f"not animated: {cell.signature}: {' '.join(str(error).split())}", file=sys.stderr)
            continue
        found[cell.signature] = motion([(left.numpy(), right.numpy()) for left, right in drawn.frames])
    return found
