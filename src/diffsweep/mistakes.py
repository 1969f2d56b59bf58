"""A user's mistake: the checks that find one in a value, and the one place that turns it into a line and an exit code.

A constructor names its own parameter (`nfe=0 must be ...`); whoever builds it from a config puts the config's path in
front (`BadValue.below`). Whoever runs a program hands what was raised to `report`.
"""

from __future__ import annotations

import math
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from diffsweep.messages import printable, say, say_traceback

# Exit codes: of a mistake in what was asked for, and of any other failure.
MISTAKE, FAILURE = 2, 1


class BadValue(ValueError):
    """A parameter has a value that it must not have: `NAME=VALUE RULE`.

    Args:
        name: Of the parameter, as its function knows it.
        value: What it was given.
        rule: What it must be, to be read after the value.
    """

    def __init__(self, name: str, value: object, rule: str) -> None:
        super().__init__(name, value, rule)
        self.name, self.value, self.rule = name, value, rule

    def __str__(self) -> str:
        return f"{self.name}={spell(self.value)} {self.rule}"

    def below(self, path: str) -> BadValue:
        """The same mistake of the parameter below the dotted `path` of a config."""
        return BadValue(f"{path}.{self.name}" if path else self.name, self.value, self.rule)


@contextmanager
def below(path: str) -> Iterator[None]:
    """Put the dotted `path` of a config in front of the parameter whose bad value is found inside of the block."""
    try:
        yield
    except BadValue as error:
        raise error.below(path) from None


def spell(value: object) -> str:
    """A value as a config spells it, cut if it is long."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= 160 else f"{text[:157]}..."


def whole(name: str, value: object, least: int | None = None, most: int | None = None) -> int:
    """`value` if it is a whole number from `least` to `most`, both included; else raises BadValue."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or (least is not None and value < least)
        or (most is not None and value > most)
        or abs(value) >= 2**63
    ):
        bounds = f", {least} or more" if most is None and least is not None else ""
        bounds = f" from {least} to {most}" if most is not None and least is not None else bounds
        size = " of at most 63 bits" if isinstance(value, int) and abs(value) >= 2**63 else ""
        raise BadValue(name, value, f"must be a whole number{size}{bounds}")
    return value


def number(name: str, value: object) -> float:
    """`value` if it is a finite number; else raises BadValue."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise BadValue(name, value, "must be a finite number")
    return value


def above(name: str, value: object, bound: float = 0, why: str = "") -> float:
    """`value` if it is a finite number above `bound`; else raises BadValue, which ends in `why`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not bound < value < math.inf:
        raise BadValue(name, value, f"must be above {bound:g}{why and f': {why}'}")
    return value


def at_least(name: str, value: object, bound: float = 0, why: str = "") -> float:
    """`value` if it is a finite number, `bound` or more; else raises BadValue, which ends in `why`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not bound <= value < math.inf:
        raise BadValue(name, value, f"must be {bound:g} or more{why and f': {why}'}")
    return value


def share(name: str, value: object, *, zero: bool = True, one: bool = True) -> float:
    """`value` if it is a number between 0 and 1, which `zero` and `one` include; else raises BadValue."""
    good = not isinstance(value, bool) and isinstance(value, (int, float)) and 0 <= value <= 1
    if not good or (value == 0 and not zero) or (value == 1 and not one):
        low, high = "at least 0" if zero else "above 0", "at most 1" if one else "below 1"
        raise BadValue(name, value, f"must be {low} and {high}")
    return float(value)  # type: ignore[arg-type]


def flag(name: str, value: object) -> bool:
    """`value` if it is true or false; else raises BadValue."""
    if not isinstance(value, bool):
        raise BadValue(name, value, "must be true or false")
    return value


def one_of(name: str, value: object, known: Iterable[str]) -> str:
    """`value` if it is one of the known words; else raises BadValue with all of them and the nearest."""
    known = list(known)
    if value not in known:
        near = nearest(str(value), known, 1)
        hint = f"did you mean {near[0]}? It " if near else ""
        raise BadValue(name, value, f"is unknown: {hint}must be {alternatives(known)}")
    return str(value)


def nearest(word: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The known words that `word` may have been meant for, the nearest first; a dotted one also by its last part."""
    known = sorted(set(known))
    found = get_close_matches(word, known, most, 0.6)
    last = word.rpartition(".")[2]
    ends = [name for name in known if name.rpartition(".")[2] == last]
    parts: dict[str, list[str]] = {}
    for name in known:
        parts.setdefault(name.rpartition(".")[2], []).append(name)
    near = [name for part in get_close_matches(last, parts, most, 0.75) for name in parts[part]]
    return list(dict.fromkeys([*ends, *found, *near]))[:most]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`: did you mean A, B or C?` for the nearest known words, or nothing if none is near."""
    near = nearest(word, known)
    return f": did you mean {alternatives(near)}?" if near else ""


def alternatives(words: Iterable[str]) -> str:
    """`a, b or c`."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def is_from_own_code(error: BaseException) -> bool:
    """Whether `error` was raised by a file that is neither ours nor an installed package: a part of the user's own.

    Its words are not written for whoever runs it, so its traceback is shown.
    """
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    name = trace.tb_frame.f_code.co_filename
    if name.startswith("<"):
        return False
    package = Path(__file__).resolve().parent
    installed = [package, package.with_name("hydra_plugins"), *map(Path, sysconfig.get_paths().values())]
    file = Path(name).resolve()
    return "site-packages" not in file.parts and not any(file.is_relative_to(folder) for folder in installed)


def is_mistake(error: BaseException) -> bool:
    """Whether `error` is of a kind that is raised for a user's mistake, with words for the user."""
    # A disk that is full says so in one line, whoever writes.
    if is_from_own_code(error) and not isinstance(error, OSError):
        return False
    kinds: list[Any] = [ValueError, OSError]
    # Whoever has raised such an exception has loaded the package that defines it.
    for module, name in (("omegaconf.errors", "OmegaConfBaseException"), ("hydra.errors", "HydraException")):
        if module in sys.modules:
            kinds.append(getattr(sys.modules[module], name))
    return isinstance(error, tuple(kinds))


def one_line(error: BaseException) -> str:
    """What an exception says, in one line; one that is no user's mistake with its type in front.

    Hydra's list of searched places is left out, and so is its advice to add a key that nothing reads. Control
    characters, which may come from anybody's files, are shown and not obeyed.
    """
    return printable(_said(error))


def _said(error: BaseException) -> str:
    if not is_mistake(error):
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    cause = error.__cause__
    if (option := getattr(error, "missing_cfg_file", None)) and (options := getattr(error, "options", None)):
        group, _, word = str(option).rpartition("/")
        near = did_you_mean(word, options) or (f": choose {alternatives(options)}" if len(options) < 13 else "")
        return f"{group}={word} does not exist{near} (--help lists all options)"
    for known in (error, cause):
        if (parent := getattr(known, "parent_node", None)) is not None and type(known).__name__ in _ABSENT:
            return _absent_key(known, parent)
    absent = re.search(r"Environment variable '(\w+)' not found", str(error))
    if absent is not None and (key := getattr(error, "full_key", None)):
        return f"{key} needs the environment variable {absent[1]}, which is not set"
    for pattern, words in _REPHRASED.items():
        if match := re.match(pattern, str(error)):
            return match.expand(words)
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename} cannot be read or written: {error.strerror}"
    words = re.split(r"\n(?:Config s|S)earch path:|\nSee https?:|\nTo append to your|\n +full_key: ", str(error))[0]
    line = " ".join(words.split())
    override = getattr(error, "override", None)
    return _unreadable(override, line) if override else line


def _unreadable(word: str, line: str) -> str:
    """What is wrong with a word that Hydra's grammar does not know, of which it has said `line`."""
    key, _, value = word.partition("=")
    if value.endswith(",") or value.startswith(",") or ",," in value:
        return f"{word} has a comma without a value on either side: write {key}=A,B, without spaces"
    for opening, closing in ("()", "[]", "{}"):
        if value.count(opening) != value.count(closing):
            return f"{word} has not as many {opening} as {closing}: put the whole word into single quotes"
    if value.count("'") % 2 or value.count('"') % 2:
        return f"{word} has a quotation mark without its other one"
    line = re.sub(r"^Error parsing override '.*?' |,? expecting \{.*", "", line).replace("<EOF>", "its end")
    return f"cannot read {word}: {line}"


# What Hydra says in words of its own, which also recommend to add what nothing reads.
_REPHRASED = {
    r"Could not append to config\. An item is already at '(.*)'": r"\1 is there already: write \1=VALUE to change it",
    r"Multiple values for (\S+)\. To override a value use 'override \S+: (.*)'": r"\1 is chosen already: write \1=NAME",
    r"(?s)(?:In '.*?': )?Could not override '(.*?)'\. No match in the defaults list.*": (
        r"\1 is no choice of this configuration (--help lists all groups)"
    ),
    r"Could not delete '(.*?)'\. No match in the defaults list": (
        r"\1 is no choice that can be left out (--help lists all groups)"
    ),
    r"In '.*': Could not (?:load|find) '(.*)/(.*)'": r"\1=\2 does not exist (--help lists all options)",
    r"Could not delete from config\. '(.*)' does not exist": r"there is no key \1 to delete (--cfg job shows all keys)",
    r"(?s)Ambiguous value for argument '(.*?)'": r"\1 has several values: -m compares them; one list is KEY=[A,B]",
    r"(?s)Error parsing override '(.*?)'\s+missing EQUAL": r"\1 sets nothing: write KEY=VALUE or GROUP=OPTION",
}

# OmegaConf's exceptions for a key that is not there.
_ABSENT = ("ConfigKeyError", "ConfigAttributeError")


def _absent_key(error: Any, parent: Any) -> str:
    key = str(error.full_key or error.key)
    root = parent._get_root()
    return f"there is no key {key}{did_you_mean(key, _keys(root)) or '; --cfg job shows all of them'}"


def _keys(node: Any, path: str = "") -> Iterable[str]:
    """The dotted keys of a config, but those of Hydra itself."""
    for key in node:
        if key == "_target_" or (key == "hydra" and not path):
            continue
        yield f"{path}{key}"
        below = node._get_node(key)
        if hasattr(below, "_get_node") and hasattr(below, "keys") and not (below._is_none() or below._is_missing()):
            yield from _keys(below, f"{path}{key}.")


def refuse_lost_working_folder() -> None:
    """Leave with one line if the working folder is gone: nothing that is relative to it means anything."""
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        say("the working folder is gone (deleted or moved): cd to one that is there")
        raise SystemExit(MISTAKE) from None


def wants_traceback() -> bool:
    """Whether the user has asked, by HYDRA_FULL_ERROR=1, for the traceback of a mistake."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def report(error: BaseException, program: str = "") -> int:
    """Print a mistake as one line, begun by `program`, and any other error as a traceback; returns the exit code."""
    if not is_mistake(error) or wants_traceback():
        say_traceback(error)
    else:
        say(f"{program}{one_line(error)}")
    return MISTAKE if is_mistake(error) else FAILURE


@contextmanager
def compact() -> Iterator[None]:
    """A user's mistake inside of the block is raised as the exception of which Hydra prints the one line only."""
    try:
        yield
    except Exception as error:
        if not is_mistake(error) or wants_traceback():
            raise
        from hydra.errors import CompactHydraException

        raise CompactHydraException(one_line(error)) from error
