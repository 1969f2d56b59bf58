"""`diffsweep options`."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffsweep.messages import print_lines
from diffsweep.mistakes import did_you_mean
from diffsweep.project import option_folders
from diffsweep.report.option_list import group_lines, option_lines
from diffsweep.sweep.plan import option_files


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("group", metavar="GROUP", nargs="?", help="as sampler or sampler/spacing; also sampler=heun")
    parser.add_argument("--config-dir", metavar="DIR", type=Path, help="folder of options of your own")


def run(options: argparse.Namespace) -> int:
    """Every choice that there is: all groups, or the options of GROUP with what each is and the defaults of its keys.

    `diffsweep options dataset` says what each data set is good for, its licence and where it comes from; `diffsweep
    options sampler=heun` shows one option's file, whose comments explain its keys.
    """
    folders = option_folders(options.config_dir)
    known, chosen = option_files.groups(folders), option_files.chosen(folders)
    if options.group is None:
        lines = list(group_lines(known, chosen))
    else:
        group, _, name = options.group.partition("=")
        found = option_files.of_group(group, known)
        if name:
            lines = _file(group, name, {option.name: option.file for option in found})
        else:
            lines = list(option_lines(found, chosen))
    for line in lines:
        print_lines(line)
    return 0


def _file(group: str, name: str, files: dict[str, Path]) -> list[str]:
    if name not in files:
        raise ValueError(f"{group}={name} does not exist{did_you_mean(name, files) or f': choose {list(files)}'}")
    return [f"# {files[name]}", *files[name].read_text(encoding="utf-8").splitlines()]
