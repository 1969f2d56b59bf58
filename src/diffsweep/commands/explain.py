"""`diffsweep explain`."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffsweep.messages import print_lines
from diffsweep.project import option_folders
from diffsweep.report.key_text import key_lines
from diffsweep.sweep.plan.key_reference import KeyReference


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("key", metavar="KEY", help="as sampler.spacing.rho, or a place or group as sampler/spacing")
    parser.add_argument("--config-dir", metavar="DIR", type=Path, help="folder of options of your own")


def run(options: argparse.Namespace) -> int:
    """What a key is: its meaning, range and type, its default, the class that reads it, the options that set it.

    `diffsweep explain sampler.spacing.rho` explains a key, `diffsweep explain sampler.spacing` all
    that may stand there.
    """
    key = KeyReference(option_folders(options.config_dir)).find(options.key)
    print_lines(*key_lines(key))
    return 0
