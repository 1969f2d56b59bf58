"""`diffsweep plan`: train.py with mode=plan."""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as after `python train.py -m`")


def run(options: argparse.Namespace) -> int:
    """What `python train.py -m OVERRIDE ...` would train and evaluate, what is done of it, what the rest may cost."""
    return train(options, "plan")


def train(options: argparse.Namespace, mode: str) -> int:
    """Be `python train.py -m OVERRIDE ... mode=MODE`. Raises ValueError where there is none."""
    if not Path("train.py").is_file():
        raise ValueError("there is no train.py here: run this in the project's folder")
    # In quotes a folder may have any name.
    runs = [f"paths.runs={QuotedString(options.runs, Quote.single).with_quotes()}"] if options.runs != "runs" else []
    # Hydra reads the command line itself.
    sys.argv = ["train.py", "-m", *options.overrides, *runs, f"mode={mode}"]
    runpy.run_path("train.py", run_name="__main__")
    return 0
