"""`diffsweep compare`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffsweep.mistakes import BadValue
from diffsweep.report import side_by_side
from diffsweep.report.console import here, lines
from diffsweep.results.lookup import find
from diffsweep.sweep.store.record import Cell, Fit
from diffsweep.sweep.store.result import Result


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("a", metavar="A", help="a cell or fit (the beginning of its name), best or last")
    parser.add_argument("b", metavar="B", help="another")
    parser.add_argument("--picture", metavar="FILE", help="where to put both grids (default: a file below samples/)")


def run(options: argparse.Namespace) -> int:
    """Put two cells side by side: settings that differ, numbers with their difference, samples from the same noise.

    Of two trainings it compares the cells that were sampled and scored alike. A difference has a 95 % interval: cells
    whose interval contains 0 cannot be told apart by their samples.
    """
    a, b = find(options.a, options.runs), find(options.b, options.runs)
    if a == b:
        raise BadValue("B", options.b, f"is {a.signature}, as A: name another one")
    console = here()
    if isinstance(a, Cell) and isinstance(b, Cell):
        first, second = _finished(a), _finished(b)
        side_by_side.show_pair(console, side_by_side.Pair(first[0], second[0], first[1], second[1]))
        shown = (a, b)
    elif isinstance(a, Fit) and isinstance(b, Fit):
        found = side_by_side.pairs(*([_finished(cell) for cell in fit.cells() if cell.done] for fit in (a, b)))
        if not found:
            raise ValueError(f"no cells of {a.signature} and {b.signature} were sampled and scored alike")
        side_by_side.show_pairs(console, found)
        shown = (Cell.of(found[0].a, options.runs), Cell.of(found[0].b, options.runs))
    else:
        cell, fit = (a, b) if isinstance(a, Cell) else (b, a)
        raise ValueError(f"{cell.signature} is a cell and {fit.signature} a training: name two of one kind")
    if all(cell.samples_file.is_file() for cell in shown):
        default = f"samples/{shown[0].signature}-{shown[1].signature}.png"
        picture = Path(options.picture or default)
        side_by_side.save_pictures(shown[0].samples_file, shown[1].samples_file, picture)
        lines(console, "", f"pictures  {picture}", "          A on the left; the same place is the same starting noise")
    return 0


def _finished(cell: Cell) -> tuple[Result, Mapping[str, Any]]:
    """The result of a cell and its config. Raises ValueError for a cell without result."""
    result = cell.result()
    if result is None:
        raise ValueError(f"{cell.signature} has no result yet")
    return result, cell.config()
