"""Text for the user: lines on standard error, and consoles that show control characters instead of obeying them.

What is printed comes from files that anybody may have written: a name in somebody else's result.json must not move the
cursor, set the title of the window, or hide what stands beside it.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType
    from rich.segment import Segment

# Lines for grep and awk are never wrapped; rich takes a pipe for 80 columns wide.
UNBOUNDED = 10_000

# A control character -> its picture, as ESC -> U+241B; one without, or that turns the direction of writing -> U+FFFD.
_PICTURES = (
    {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"}
    | {127: 0x2421}
    | dict.fromkeys([*range(0x80, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A)], 0xFFFD)
)


def say(*lines: str) -> None:
    """Print lines to standard error; a reader that has gone away is no reason to fail."""
    with contextlib.suppress(OSError):
        for line in lines:
            print(printable(line), file=sys.stderr, flush=True)


def say_traceback(error: BaseException) -> None:
    """Print an error of the code to standard error, with where it came from."""
    say("".join(traceback.format_exception(error)).rstrip())


def print_lines(*lines: str) -> None:
    """Print lines to standard output. Raises BrokenPipeError if its reader has gone away."""
    for line in lines:
        print(printable(line), flush=True)


def printable(text: str) -> str:
    """`text` with a visible character, of the same width, in place of every control character but tab and newline."""
    # Nearly all text is, and to ask costs a sixth of translating it.
    return text if text.isprintable() else text.translate(_PICTURES)


def console(*, stderr: bool = False) -> Console:
    """A console of standard output or standard error; on one that is no terminal lines are never wrapped."""
    from rich.console import Console, RenderHook

    class PrintableHook(RenderHook):
        def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
            return [Printable(one) for one in renderables]

    made = Console(stderr=stderr)
    made = made if made.is_terminal else Console(stderr=stderr, width=UNBOUNDED)
    made.push_render_hook(PrintableHook())
    return made


class Printable:
    """What a console of rich prints, with `printable` text; `console` does this to everything but a live display."""

    def __init__(self, content: RenderableType) -> None:
        self.content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self.content, options):
            # Rich's own control codes, as of a cursor, are segments of another kind.
            yield segment if segment.control else segment._replace(text=printable(segment.text))
