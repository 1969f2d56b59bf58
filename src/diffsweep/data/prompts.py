"""Prompts: texts that samples are asked for in turn, from a file with one a line or from a list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffsweep.mistakes import BadValue

# A file of more bytes is none of prompts.
_LARGEST = 10_000_000
_MEANT = "for a prompt itself write prompts=[...]"


def prompts_of(given: object) -> list[str] | None:
    """The prompts that a config's `prompts` names: of a file its lines without the blank ones; None for null.

    Raises:
        ValueError: in one line, for a file that is not there, has no prompt or is no text, or a list of anything else.
    """
    if given is None:
        return None
    if isinstance(given, str):
        return _lines(given)
    if not isinstance(given, Sequence) or not all(isinstance(one, str | int | float) for one in given):
        raise BadValue("prompts", given, "must be a file with one prompt a line, or a list of texts")
    found = [" ".join(str(one).split()) for one in given]
    if not found or not all(found):
        raise BadValue("prompts", list(given), "has no text: give at least one, and none that is empty")
    return found


def _lines(name: str) -> list[str]:
    path = Path(name)
    try:
        if path.stat().st_size > _LARGEST:
            raise BadValue("prompts", name, f"has more than {_LARGEST // 1_000_000} MB: it is no file of prompts")
        content = path.read_bytes()
    except OSError as error:
        raise BadValue("prompts", name, f"cannot be read ({error.strerror}): {_MEANT}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if any(ord(one) < 32 and not one.isspace() for one in text):
        raise BadValue("prompts", name, "is no text file: give one with a prompt a line, in UTF-8")
    found = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    if not found:
        raise BadValue("prompts", name, "has no prompt: write one a line")
    return found
