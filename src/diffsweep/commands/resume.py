"""`diffsweep resume`."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffsweep.commands.values import whole
from diffsweep.entry import launch
from diffsweep.report.status import find


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("sweep", metavar="SWEEP", help="its name, the beginning of it, or last")
    parser.add_argument(
        "--trials",
        type=whole,
        metavar="N",
        help="of a search, also of a finished one: how many trials in the end",
    )


def run(options: argparse.Namespace) -> int:
    """Do what a sweep lacks, as it was launched: what is missing or failed, and only that.

    The settings are those that were planned, whatever the files in conf/ say now; the code is that of now.
    """
    return 0 if launch.resume(find(Path(options.runs), options.sweep), options.trials) else 1
