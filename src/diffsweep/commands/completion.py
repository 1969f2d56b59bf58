"""`diffsweep completion`, and what a shell then completes: argcomplete asks, in a process that imports nothing slow."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from diffsweep.messages import print_lines
from diffsweep.project import option_folders
from diffsweep.sweep.plan import option_files

SHELLS = ("bash", "zsh", "fish")
# Of Hydra's options those that people type.
_TRAIN_OPTIONS = ("--multirun", "--cfg", "--config-dir")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")


def run(options: argparse.Namespace) -> int:
    """What completes the words of `diffsweep` in a shell: commands, options and keys of runs, sweeps, cells.

    Put into the shell's start file: `eval "$(diffsweep completion bash)"` (zsh likewise), or for fish
    `diffsweep completion fish | source`. Words of `python train.py` are Hydra's: `python train.py -sc install=bash`.
    """
    import argcomplete  # pyright: ignore[reportMissingImports]  # an environment that is older than this command

    print_lines(argcomplete.shellcode(["diffsweep"], shell=options.shell))  # pyright: ignore[reportPrivateImportUsage]
    return 0


def answer(parser_for: Callable[[list[str]], argparse.ArgumentParser]) -> None:
    """Tell the shell the words that may stand where the cursor is, and leave the process.

    Args:
        parser_for: makes the parser for the words of a command line, the program left out.
    """
    import argcomplete  # pyright: ignore[reportMissingImports]

    line, point = os.environ["COMP_LINE"], int(os.environ["COMP_POINT"])
    _, _, _, typed, _ = argcomplete.split_line(line, point)  # pyright: ignore[reportPrivateImportUsage]
    words = typed[1:]
    parser = parser_for(words)
    _add_completers(parser, words[0] if words else "")
    argcomplete.autocomplete(parser, always_complete_options=False)


def _add_completers(whole: argparse.ArgumentParser, command: str) -> None:
    """Give each argument of the parser of a command, one of those of `whole`, what completes it."""
    (commands,) = (action for action in whole._actions if isinstance(action, argparse._SubParsersAction))
    parser = commands.choices.get(command)
    if parser is None:
        return
    if command == "train":
        # Hydra reads its words; here they are known as far as they can be completed.
        parser.add_argument("-m", action="store_true")
        for option in _TRAIN_OPTIONS:
            parser.add_argument(option, action="store_true")
        parser.add_argument("overrides", nargs="*", metavar="OVERRIDE")
    for action in parser._actions:
        completer = _COMPLETERS.get(str(action.metavar))
        if completer is not None:
            action.completer = completer  # type: ignore[attr-defined]  # argcomplete looks for it there


def overrides(prefix: str, **_: Any) -> list[str]:
    """Groups with their options, and keys, that begin as a word of a run's command line does."""
    groups = option_files.groups(option_folders())
    # Of several values, or of a list, the last one is being typed.
    head = re.sub(r"[^=,\[]*$", "", prefix)
    if head:
        group = head.partition("=")[0].lstrip("+")
        return [f"{head}{option}" for option in groups.get(group, ())] or _values(group, head)
    found = [f"{group}=" for group in groups if not group.startswith("hydra/")]
    hydra = [f"{group}=" for group in groups if group.startswith("hydra/")] if prefix.startswith("h") else []
    found += hydra
    # Keys take longer: they are looked for where no group begins so.
    if any(word.startswith(prefix) for word in found):
        return found
    return [*found, *(f"{key}=" for key in _keys())]


def _values(key: str, head: str) -> list[str]:
    """Values of a key that is true or false."""
    defaults = {one.value for one in _settings().get(key, ())}
    return [f"{head}{value}" for value in ("true", "false")] if defaults & {"true", "false"} else []


def _settings() -> dict[str, Any]:
    from diffsweep.sweep.plan.key_reference import KeyReference

    return KeyReference(option_folders()).settings


def _keys() -> list[str]:
    return [key for key, settings in _settings().items() if not all(one.is_place for one in settings)]


def keys(prefix: str, **_: Any) -> list[str]:
    """Keys, and groups, for `diffsweep explain`."""
    return [*option_files.groups(option_folders()), *_keys()]


def groups(prefix: str, **_: Any) -> list[str]:
    """Groups; behind `=` their options."""
    known = option_files.groups(option_folders())
    group, mark = prefix.partition("=")[:2]
    return [f"{group}={option}" for option in known.get(group, ())] if mark else list(known)


def sweeps(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Names of sweeps in the folder of runs that was typed."""
    return ["last", *_names(Path(parsed_args.runs).glob("sweeps/*"))]


def cells(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Names of cells and of fits in the folder of runs that was typed."""
    runs = Path(parsed_args.runs)
    return ["best", "last", *_names(runs.glob("fits/*")), *_names(runs.glob("fits/*/cells/*"))]


def filters(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Names of sweeps, and conditions on what a run has chosen."""
    known = option_files.groups(option_folders())
    group, mark = prefix.partition("=")[:2]
    if mark:
        return [f"{group}={option}" for option in known.get(group, ())]
    return [*sweeps(parsed_args), *(f"{one}=" for one in known if "/" not in one)]


def _names(folders: Iterable[Path]) -> list[str]:
    return sorted(folder.name for folder in folders if folder.name[0] != "." and folder.is_dir())


# By what a command's help calls its argument.
_COMPLETERS: dict[str, Callable[..., list[str]]] = {
    "OVERRIDE": overrides,
    "KEY=VALUE": overrides,
    "KEY": keys,
    "GROUP": groups,
    "SWEEP": sweeps,
    "FILTER": filters,
    **dict.fromkeys(("CELL", "A", "B"), cells),
}
