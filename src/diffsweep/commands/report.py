"""`diffsweep report`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from diffsweep.commands.values import add_trust, whole
from diffsweep.entry import sweep_end
from diffsweep.messages import print_lines
from diffsweep.report import page, status
from diffsweep.report.comparison import Comparison, tables
from diffsweep.report.fill_defaults import fill_defaults
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.store import query
from diffsweep.sweep.store.record import Cell


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("filters", nargs="*", metavar="SWEEP", help="its name, or conditions as for `results`")
    parser.add_argument("--metric", metavar="NAME", help="rank by this number instead of the main one")
    parser.add_argument("--out", metavar="FILE", help="where to (default: report.html of the sweep, or here)")
    parser.add_argument(
        "--animate", metavar="N", type=whole, default=0, help="show how the first N samples of the best cells arise"
    )
    parser.add_argument("--serve", action="store_true", help="show it in a browser while the sweep goes on")
    parser.add_argument("--port", metavar="N", type=whole, help="of --serve (default: any that is free)")
    add_trust(parser)


def run(options: argparse.Namespace) -> int:
    """Write one HTML page that needs no network: who won, by how much, what it looks like, and what it cost.

    Every sweep writes its own at its end. SWEEP is its name, the beginning of it, or last; or conditions on columns, as
    for `diffsweep results`, for a page about results of several sweeps.

    With --animate 4 the page also shows, for the best 24 cells, what the samplers make of the first 4 starting noises,
    step by step; that draws them anew, without training, and makes the page larger: of 8 x 8 pixels each by 10 kB a
    cell, of 28 x 28 by 50 kB.

    With --serve nothing is written: the page is served on 127.0.0.1 under an address that is printed, and follows the
    sweep while it goes on; without SWEEP it begins with a list of all sweeps.
    """
    runs = Path(options.runs)
    if options.serve:
        return _serve(options, runs)
    if options.port is not None:
        raise ValueError(f"--port {options.port} is of --serve, which is not there")
    if not options.filters:
        raise ValueError("name a sweep, as last, or give conditions; --serve alone lists all sweeps")
    if len(options.filters) == 1 and not any(sign in options.filters[0] for sign in "=<>"):
        folder = status.find(runs, options.filters[0])
        about, file = _about(folder, runs), folder / "report.html"
    else:
        chosen = query.select(query.results(runs, jackknife=True), options.filters, runs)
        filled = fill_defaults(chosen, lambda result: Cell.of(result, runs).config())
        about, file = Comparison(" ".join(options.filters), runs, filled), Path("report.html")
    if not about.results and not about.failures:
        raise ValueError(f"nothing to report: no finished run passes {' '.join(options.filters)}")
    if options.animate:
        from diffsweep.results.animation import animations
        from diffsweep.runs.trust import trusting

        ranking = [result for rows in tables(about.ranked_by(options.metric)).values() for result in rows]
        with trusting(everything=options.trust):
            about = replace(about, motions=animations(ranking, options.animate, runs))
    file = Path(options.out) if options.out else file
    page.write(about, file, options.metric)
    print_lines(str(file))
    return 0


def _about(folder: Path, runs: Path) -> Comparison:
    return sweep_end.comparison(folder, runs, Plan.read(folder))


def _serve(options: argparse.Namespace, runs: Path) -> int:
    """Serve one sweep, or all; returns the exit code."""
    from diffsweep.report.server import ReportServer, serve

    for name in ("out", "animate"):
        if getattr(options, name):
            raise ValueError(f"--{name} is of a page that is written, which --serve does not do")
    if len(options.filters) > 1 or any(sign in word for word in options.filters for sign in "=<>"):
        raise ValueError(f"--serve shows one sweep or all of them, not {' '.join(options.filters)}")
    only = status.find(runs, options.filters[0]) if options.filters else None
    server = ReportServer(
        lambda: [only] if only is not None else status.sweeps(runs),
        lambda folder: _about(folder, runs),
        options.port or 0,
        options.metric,
    )
    serve(server, only.name if only is not None else "")
    return 0
