"""The options of a project as text: all groups, or one group with what each option is and its settings."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from diffsweep.sweep.plan.option_files import DECIDES, Option

_INDENT = "    "


def group_lines(known: Mapping[str, Mapping[str, Path]], chosen: Mapping[str, str]) -> Iterator[str]:
    """A line for each group, with what it decides, and its options below it."""
    for group, options in known.items():
        default = f" (default: {chosen[group]})" if group in chosen else ""
        yield f"{group}: {DECIDES.get(group, 'of your own')}{default}"
        yield from _wrapped(", ".join(options), _INDENT)


def option_lines(options: Sequence[Option], chosen: Mapping[str, str]) -> Iterator[str]:
    """Each option with its sentence, what more is said of it, and its settings."""
    group = options[0].group
    for place, option in enumerate(options):
        if place:
            yield ""
        yield f"{group}={option.name}{'   (the default)' if chosen.get(group) == option.name else ''}"
        yield from _wrapped(option.sentence, _INDENT)
        # A study's sentence is its question.
        notes = {name: note for name, note in option.notes.items() if note != option.sentence}
        for name, note in notes.items():
            yield from _wrapped(f"{name}: {note}", _INDENT)
        if option.settings:
            yield from _wrapped(" ".join(option.settings), _INDENT)


def _wrapped(text: str, indent: str) -> list[str]:
    width = max(40, min(120, shutil.get_terminal_size((120, 24)).columns))
    # A setting is copied: it is never cut.
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
