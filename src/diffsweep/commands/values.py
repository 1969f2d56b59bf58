"""What several commands have in common: an option, and words as values, which the parser refuses if they are not."""

from __future__ import annotations

import argparse


def whole(text: str) -> int:
    """A whole number, 0 or more."""
    value = int(text) if text.isdecimal() else -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} must be a whole number, 0 or more")
    return value


def days(text: str) -> float:
    """A number of days, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be a number of days, 0 or more")
    return value


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The option --trust of commands that rebuild models."""
    parser.add_argument(
        "--trust", action="store_true", help="import whatever class the run's config names: it may run any code"
    )
