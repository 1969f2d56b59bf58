"""Where results are printed: a terminal with colours and rules, or a pipe that gets plain text in long lines."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffsweep.messages import console


def here() -> Console:
    """The console of standard output."""
    return console()


def sign_of(console: Console) -> str:
    """What stands before half the width of an interval."""
    return "+-" if not console.is_terminal or console.options.ascii_only else "\N{PLUS-MINUS SIGN}"


def lines(console: Console, *texts: str) -> None:
    """Print lines that are never wrapped: commands and paths are there to be copied."""
    for text in texts:
        console.print(Text(text), soft_wrap=True)


def show(console: Console, table: Table) -> None:
    """Print a table; in a pipe without spaces at the ends of its lines."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    lines(console, *(line.rstrip() for line in captured.get().splitlines()))
