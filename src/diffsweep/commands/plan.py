"""`diffsweep plan`: `diffsweep train -m` with mode=plan."""

from __future__ import annotations

import argparse
import sys

from hydra.core.override_parser.types import Quote, QuotedString


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as after `diffsweep train -m`")


def run(options: argparse.Namespace) -> int:
    """What `diffsweep train -m OVERRIDE ...` would train and evaluate, what is done of it, what the rest may cost."""
    return train(options, "plan")


def train(options: argparse.Namespace, mode: str) -> int:
    """Be `diffsweep train -m OVERRIDE ... mode=MODE`."""
    from diffsweep.entry.train import main

    # In quotes a folder may have any name.
    runs = [f"paths.runs={QuotedString(options.runs, Quote.single).with_quotes()}"] if options.runs != "runs" else []
    # Hydra reads the command line itself.
    sys.argv[1:] = ["-m", *options.overrides, *runs, f"mode={mode}"]
    main()
    return 0
