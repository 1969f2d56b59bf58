"""`diffsweep gc`."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffsweep.commands.values import days
from diffsweep.messages import print_lines, say
from diffsweep.report import garbage_table
from diffsweep.sweep.store import garbage


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("--yes", action="store_true", help="delete it")
    parser.add_argument("--older-than", metavar="DAYS", type=days, default=7.0, help="for abandoned trainings (7)")


def run(options: argparse.Namespace) -> int:
    """What could be freed, with sizes; nothing is deleted without --yes.

    Checkpoints of finished trainings, leftovers of killed writers, leases that no longer count, trainings that a search
    has pruned, and trainings that failed or stopped --older-than DAYS ago, have no result and belong to no sweep or
    search. Never a finished cell or its training, never what anybody is at work on, and never a file that diffsweep has
    not written: what else lies in a folder stays, and links are not followed.
    """
    runs = Path(options.runs)
    if not runs.is_dir():
        raise ValueError(f"--runs {runs} is no folder")
    if (runs / "fits").is_symlink():
        say(f"{runs / 'fits'} is a link, which is not followed")
    older_than = options.older_than * garbage.DAY
    found = garbage.garbage(runs, older_than)
    if not found:
        print_lines("nothing to free")
        return 0
    for line in garbage_table.lines(found, older_than):
        print_lines(line)
    if not options.yes:
        print_lines(f"{garbage_table.size(sum(one.size for one in found)):>9}  in all; --yes frees it")
        return 0
    freed = list(garbage.free_all(found, runs, older_than))
    print_lines(f"{garbage_table.size(sum(size for size, _ in freed)):>9}  freed")
    failures = [reason for _, reason in freed if reason]
    kept = sum(not size and not reason for size, reason in freed)
    if kept:
        print_lines(f"{'':>9}  {kept} kept: in use since, or gone already")
    for reason in failures[:20]:
        say(f"not freed: {reason}")
    return 1 if failures else 0
