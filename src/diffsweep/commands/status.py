"""`diffsweep status`."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffsweep.report import status


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("sweep", nargs="?", metavar="SWEEP", help="its name, the beginning of it, or last")
    parser.add_argument("--watch", action="store_true", help="go on until the sweep is over")


def run(options: argparse.Namespace) -> int:
    """What goes on in a sweep; without one, a line about each."""
    return status.status(Path(options.runs), options.sweep, options.watch)
