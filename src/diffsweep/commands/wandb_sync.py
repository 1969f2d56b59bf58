"""`diffsweep wandb-sync`."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffsweep.tracking.wandb_server import reachable
from diffsweep.tracking.wandb_sync import Destination, sync


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("name", nargs="?", metavar="SWEEP_OR_RUN", help="sweep, last, or signature (default: all runs)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--online", dest="mode", action="store_const", const="online", help="send (the default)")
    how.add_argument("--offline", dest="mode", action="store_const", const="offline", help="write W&B's files only")
    parser.add_argument("--project", help="W&B project (default: that of the runs, or diffsweep)")
    parser.add_argument("--entity", help="W&B team or user (default: that of the runs, or yours)")


def run(options: argparse.Namespace) -> int:
    """Make the Weights & Biases runs of what has been done here, or complete them; what is complete is left alone.

    Everything comes from our own files (metrics.jsonl, config.yaml, result.json, samples.png), so runs that were killed
    offline lose nothing, and runs without logger=wandb can be shown as well. Of a whole sweep it also makes the
    summary and, with wandb-workspaces, a saved workspace and a report.
    """
    mode = options.mode or "online"
    why = reachable() if mode == "online" else None
    if why is not None:
        raise ValueError(f"W&B: {why}; --offline writes files for `wandb sync`")
    return sync(Path(options.runs), options.name, Destination(mode, options.project, options.entity))
