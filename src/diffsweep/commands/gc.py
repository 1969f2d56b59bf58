"""`diffsweep gc`."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from diffsweep.commands.values import days
from diffsweep.sweep.store import garbage


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("--yes", action="store_true", help="delete it")
    parser.add_argument("--older-than", metavar="DAYS", type=days, default=7.0, help="for abandoned trainings (7)")


def run(options: argparse.Namespace) -> int:
    """What could be freed, with sizes; nothing is deleted without --yes.

    Checkpoints of finished trainings, leftovers of killed writers, leases that no longer count, and trainings that
    failed or stopped --older-than DAYS ago, have no result and belong to no sweep. Never a finished cell or its
    training, and never what anybody is at work on.
    """
    if not Path(options.runs).is_dir():
        raise ValueError(f"--runs {options.runs} is no folder")
    older_than = options.older_than * garbage.DAY
    found = garbage.garbage(options.runs, older_than)
    if not found:
        print("nothing to free")
        return 0
    titles = {
        "fit": f"trainings without result, in no sweep, quiet for {options.older_than:g} days",
        "checkpoint": "checkpoints of finished trainings",
        "temporary": "leftovers of killed writers",
        "lease": "old leases",
    }
    for kind, title in titles.items():
        ours = sorted((one for one in found if one.kind == kind), key=lambda one: -one.size)
        if ours:
            print(f"{_size(sum(one.size for one in ours)):>9}  {len(ours)} {title}")
        shown = ours[:20] if kind != "lease" else []
        for one in shown:
            print(f"{_size(one.size):>9}    {one.path}  ({one.why})")
        if shown and len(ours) > len(shown):
            print(f"{'':>9}    and {len(ours) - len(shown)} more")
    total = sum(one.size for one in found)
    if not options.yes:
        print(f"{_size(total):>9}  in all; --yes frees it")
        return 0

    def free(one: garbage.Garbage) -> tuple[int, str]:
        try:
            return garbage.free(one, options.runs, older_than), ""
        except OSError as error:
            return 0, f"{one.path}: {error.strerror or error}"

    # Waiting for word from holders on other hosts takes a minute each, but not one after another.
    with ThreadPoolExecutor(32) as pool:
        freed = list(pool.map(free, found))
    print(f"{_size(sum(size for size, _ in freed)):>9}  freed")
    failures = [reason for _, reason in freed if reason]
    kept = sum(not size and not reason for size, reason in freed)
    if kept:
        print(f"{'':>9}  {kept} kept: in use since, or gone already")
    for reason in failures[:20]:
        print(f"not freed: {reason}", file=sys.stderr)
    return 1 if failures else 0


def _size(size: int) -> str:
    if size < 1000:
        return f"{size} B"
    value, units = size / 1000, iter(("kB", "MB", "GB", "TB"))
    unit = next(units)
    while value >= 999.5 and unit != "TB":
        value, unit = value / 1000, next(units)
    return f"{value:.3g} {unit}"
