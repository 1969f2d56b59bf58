"""`diffsweep results`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from diffsweep.commands.values import whole
from diffsweep.report import export
from diffsweep.report.terminal import show_sweep
from diffsweep.sweep.store import query


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("filters", nargs="*", metavar="FILTER", help="name of a sweep, or a condition on a column")
    parser.add_argument("--format", choices=("table", "csv", "json", "parquet"), default="table")
    parser.add_argument(
        "--metric", metavar="NAME", help="rank a table by this number, as kd_digits, not by the main one"
    )
    parser.add_argument("--sort", metavar="COLUMN", help="order by this column; a table's default is its metric")
    parser.add_argument("--reverse", action="store_true", help="with --sort: largest first")
    parser.add_argument("--limit", metavar="N", type=whole, help="first N only (a table's default: 50); 0 for all")
    parser.add_argument("--out", metavar="FILE", help="write to FILE instead (not for tables)")


def run(asked: argparse.Namespace) -> int:
    """Finished cells, best first; numbers that were measured differently come in tables of their own.

    FILTER is the name of a sweep, or a condition on a column of result.json:
      sampler=ddim,heun   one of these; null stands for an absent value
      sampler!=ddim       none of these
      "fd_digits<0.5"     also <=, > and >=; in quotes, as the shell has a use for < and >
    Several conditions must all hold; of several sweeps a cell belongs to one.

    A table shows each number with half the width of its 95 % interval; * is the best, = what cannot be told from it.
    A CSV leaves out NAME_jackknife, 20 numbers in one text, which JSON and Parquet have.
    """
    if asked.format == "table" and asked.out:
        raise ValueError(f"--out {asked.out} needs --format csv, json or parquet")
    if asked.format == "parquet" and not asked.out:
        raise ValueError("--format parquet needs --out FILE: it is not text")
    if asked.reverse and not asked.sort:
        raise ValueError("--reverse needs --sort COLUMN")
    if asked.metric and asked.format != "table":
        raise ValueError(f"--metric {asked.metric} is for tables: --sort {asked.metric} orders {asked.format}")
    unreadable: list[str] = []
    every = query.results(asked.runs, unreadable, jackknife=asked.format in ("json", "parquet"))
    chosen: Sequence[Any] = query.select(every, asked.filters, asked.runs)
    if unreadable:
        more = f" and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
        print(f"left out as unreadable: {unreadable[0]}{more}", file=sys.stderr)
    if not every:
        raise ValueError(
            f"no finished runs in {asked.runs}: `python train.py` makes one; --runs DIR looks in another folder"
        )
    if not chosen:
        raise ValueError(f"none of the {len(every):,} finished runs passes {' '.join(asked.filters)}")
    if asked.format == "table":
        limit = 50 if asked.limit is None else asked.limit
        if asked.sort:
            chosen = export.ordered(chosen, asked.sort, asked.reverse)
        show_sweep(chosen, runs=asked.runs, ranked=not asked.sort, limit=limit or None, metric=asked.metric)
        return 0
    if asked.sort:
        chosen = export.ordered(chosen, asked.sort, asked.reverse)
    chosen = chosen[: asked.limit or None]
    if asked.out:
        export.write(chosen, asked.format, asked.out)
    else:
        sys.stdout.write(export.text(chosen, asked.format))
    return 0
