"""`diffsweep init`."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from diffsweep.files import explained
from diffsweep.messages import print_lines
from diffsweep.mistakes import BadValue
from diffsweep.project import template


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("folder", metavar="DIR", help="new or empty folder")


def run(options: argparse.Namespace) -> int:
    """Make a project: a dataset, backbone, sampler, experiment and study of your own, which run as they are.

    A conf/ in the folder in which a command is run adds to the options that diffsweep brings.
    """
    folder = Path(options.folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadValue("DIR", options.folder, "must be a new or empty folder")
    with explained(folder):
        shutil.copytree(template(), folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "gitignore").rename(folder / ".gitignore")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        print_lines(str(path))
    print_lines(f"\nnext:\n  cd {folder}\n  diffsweep train experiment=rings\n    # what else there is: README.md")
    return 0
