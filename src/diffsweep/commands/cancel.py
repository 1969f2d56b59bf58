"""`diffsweep cancel`."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffsweep.report import status


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("sweep", metavar="SWEEP", help="its name, the beginning of it, or last")


def run(options: argparse.Namespace) -> int:
    """Stop a sweep. Trainings save their state first; what is finished stays, and `resume` goes on from there."""
    return status.cancel(Path(options.runs), options.sweep)
