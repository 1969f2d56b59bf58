"""What a key of a config is, as text: meaning, type, default, who reads it, which options set it."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence

from diffsweep.project import train_command
from diffsweep.sweep.plan.constructor import documentation
from diffsweep.sweep.plan.key_reference import Key, Setting
from diffsweep.sweep.plan.option_files import DECIDES

_INDENT = "    "
# Options of these are not chosen by GROUP=NAME.
_ADDED = ("metric", "sweeps")


def key_lines(key: Key) -> Iterator[str]:
    """Everything that is known of a key, of a place with keys below it, or of a group of options."""
    yield key.group or key.name
    if key.group:
        yield from _field("choice", DECIDES.get(key.group, "of your own"))
        yield from _field("options", f"{', '.join(key.options)} (diffsweep options {key.group} says what each is)")
        if key.chosen:
            yield from _field("default", key.chosen)
    if key.default is not None and not key.default.is_place:
        yield from _field("default", f"{key.default.value}, of {key.default.option}")
    elif key.settings and not key.group and not any(one.is_place for one in key.settings):
        yield from _field("default", "none: a run has it with the options below only")
    for settings in _by_reader(key.settings):
        yield ""
        yield from _reading(settings)
    if key.below:
        yield ""
        yield from _field("keys", ", ".join(key.below))
    example = _example(key)
    if example:
        yield ""
        yield from _field("example", example)


def meaning(settings: Sequence[Setting]) -> str:
    """What a key is, of the files in which one reader gets it; empty if nothing says it."""
    return next((one.meaning for one in settings if one.meaning), "")


def sentence(text: str) -> str:
    """`text` with a capital letter, unless it begins with a symbol."""
    return text if text.startswith(("eps", "x0", "v ", "v,")) else f"{text[:1].upper()}{text[1:]}"


def _by_reader(settings: Sequence[Setting]) -> list[list[Setting]]:
    found: dict[str, list[Setting]] = {}
    for one in settings:
        found.setdefault(one.reader, []).append(one)
    return list(found.values())


def _reading(settings: Sequence[Setting]) -> Iterator[str]:
    """What one reader makes of a key, and the options that set it for this reader."""
    first = settings[0]
    said = meaning(settings)
    if said:
        yield from _wrapped(sentence(said), _INDENT)
    for comment in dict.fromkeys(one.comment for one in settings if one.comment not in ("", said)):
        if not first.is_place:
            yield from _field("note", comment)
    parameter = first.parameter
    if parameter is not None and parameter.annotation and not first.is_place:
        yield from _field("type", parameter.annotation)
    if first.reader:
        what = "" if first.is_place else documentation(first.reader)[0]
        yield from _field("made of it" if first.is_place else "read by", f"{first.reader}{what and ': '}{what}")
    if first.is_place:
        yield from _field("options", ", ".join(one.option for one in settings))
    else:
        values: dict[str, list[str]] = {}
        for one in settings:
            values.setdefault(one.value, []).append(one.option)
        for place, (value, options) in enumerate(values.items()):
            yield from _field("" if place else "set to", f"{value} by {', '.join(options)}")


def _example(key: Key) -> str:
    """A command that sets the key to a value that some option gives it; empty where that would say nothing."""
    if key.group:
        return "" if key.group in _ADDED else train_command(f"{key.group}={key.chosen or key.options[0]}")
    found = [
        one for one in key.settings if not one.is_place and one.value not in ("null", "???") and "$" not in one.value
    ]
    if key.default is not None and found:
        return train_command(f"{key.name}={found[-1].value}")
    one = next((one for one in found if one.option.partition("=")[0] not in _ADDED), None)
    return train_command(one.option, f"{key.name}={one.value}") if one is not None else ""


def _field(name: str, text: str) -> list[str]:
    return _wrapped(text, f"{_INDENT}{name:<12}", f"{_INDENT}{'':<12}")


def _wrapped(text: str, first: str, indent: str | None = None) -> list[str]:
    width = max(40, min(120, shutil.get_terminal_size((120, 24)).columns))
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=first if indent is None else indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
