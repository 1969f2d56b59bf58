"""`diffsweep results`."""

from __future__ import annotations

import argparse
import sys

from diffsweep.commands.values import whole
from diffsweep.messages import say
from diffsweep.project import train_command
from diffsweep.report import export
from diffsweep.report.terminal import show_sweep
from diffsweep.sweep.store import query


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("filters", nargs="*", metavar="FILTER", help="name of a sweep, or a condition on a column")
    parser.add_argument("--format", choices=("table", "csv", "json", "parquet"), default="table")
    parser.add_argument(
        "--metric", metavar="NAME", help="rank a table by this number, as kd_digits, not by the main one"
    )
    parser.add_argument("--sort", metavar="COLUMN", help="order by this column; a table's default is its metric")
    parser.add_argument("--reverse", action="store_true", help="with --sort: largest first")
    parser.add_argument("--limit", metavar="N", type=whole, help="first N only (a table's default: 50); 0 for all")
    parser.add_argument("--out", metavar="FILE", help="write to FILE instead (not for tables)")


def run(options: argparse.Namespace) -> int:
    """Finished cells, best first; numbers that were measured differently come in tables of their own.

    FILTER is the name of a sweep, or a condition on a column of result.json:
      sampler=ddim,heun   one of these; null stands for an absent value
      sampler!=ddim       none of these
      "fd_digits<0.5"     also <=, > and >=; in quotes, as the shell has a use for < and >
    Several conditions must all hold; of several sweeps a cell belongs to one.

    A table shows each number with half the width of its 95 % interval; * is the best, = what cannot be told from it.
    A CSV leaves out the values by block, 20 numbers in one text, which JSON and Parquet have.
    """
    if options.format == "table" and options.out:
        raise ValueError(f"--out {options.out} needs --format csv, json or parquet")
    if options.format == "parquet" and not options.out:
        raise ValueError("--format parquet needs --out FILE: it is not text")
    if options.reverse and not options.sort:
        raise ValueError("--reverse needs --sort COLUMN")
    if options.metric and options.format != "table":
        raise ValueError(f"--metric {options.metric} is for tables: --sort {options.metric} orders {options.format}")
    unreadable: list[str] = []
    every = query.results(options.runs, unreadable, jackknife=options.format in ("json", "parquet"))
    chosen = query.select(every, options.filters, options.runs)
    if unreadable:
        more = f" and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
        say(f"left out as unreadable: {unreadable[0]}{more}")
    if not every:
        raise ValueError(
            f"no finished runs in {options.runs}: `{train_command()}` makes one; --runs DIR looks in another folder"
        )
    if not chosen:
        raise ValueError(f"none of the {len(every):,} finished runs passes {' '.join(options.filters)}")
    if options.format == "table":
        limit = 50 if options.limit is None else options.limit
        if options.sort:
            chosen = export.sort_by(chosen, options.sort, options.reverse)
        show_sweep(chosen, runs=options.runs, ranked=not options.sort, limit=limit or None, metric=options.metric)
        return 0
    if options.sort:
        chosen = export.sort_by(chosen, options.sort, options.reverse)
    chosen = chosen[: options.limit or None]
    if options.out:
        export.write(chosen, options.format, options.out)
    else:
        sys.stdout.write(export.text(chosen, options.format))
    return 0
