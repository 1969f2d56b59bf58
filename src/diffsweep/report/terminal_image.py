"""A picture in the terminal, where it can really show one: in sixels, or by kitty's graphics protocol.

The terminal is asked once, in one question that ends with "what are you?" (DA1), which every terminal answers and
none shows; nothing is asked where something waits to be read, in the background, or without the library. The library
(textual-image) would ask at its import, take an answer that comes later than 0.1 s for what the user types, and lose
the first key of what was typed already, so it is not let.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from diffsweep.grid_geometry import GridGeometry

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.console import Console

# Seconds: answers come in milliseconds, but for those over slow lines. Whoever is silent costs them once.
PATIENCE = 1.0

# What the library draws with placeholders, others that know the protocol do not show; these do sixels.
_KITTY = ("kitty", "ghostty")

_SUPPORT = "\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\"
_CELL_SIZE = "\x1b[16t"
_ATTRIBUTES = "\x1b[c"

# Share of the terminal's lines that a picture may take, and how many columns.
_LINES, _COLUMNS = 0.6, 60


class Terminal(NamedTuple):
    """What shows pictures.

    Attributes:
        protocol: "sixel" or "tgp", as the library's modules are called.
        width: of a character, in pixels.
        height: of a character, in pixels.
    """

    protocol: str
    width: int
    height: int


def show(path: Path, console: Console) -> bool:
    """Print the picture at `path` if `console` is a terminal that can show it; returns whether it did.

    Nothing is printed, or asked, under NO_COLOR, TERM=dumb or in a pipe. A grid is enlarged by a whole factor.
    """
    ours = console.file is sys.__stdout__ and console.is_terminal and not console.is_dumb_terminal
    if not ours or "NO_COLOR" in os.environ or not path.is_file():
        return False
    if importlib.util.find_spec("textual_image") is None or (terminal := _terminal()) is None:
        return False
    from rich.console import Console as Plain

    columns, lines = min(console.width, _COLUMNS), max(4, int(console.height * _LINES))
    try:
        picture = _fitted(path, (columns * terminal.width, lines * terminal.height), (terminal.width, terminal.height))
    except (OSError, ValueError, SyntaxError):
        return False
    columns, lines = picture.width // terminal.width, picture.height // terminal.height
    # The protocol's numbers of pictures are colours, which must not be rounded.
    exact = Plain(file=console.file, force_terminal=True, color_system="truecolor", width=console.width)
    exact.print(_drawer(terminal)(picture, columns, lines), crop=False)
    return True


def _fitted(path: Path, most: tuple[int, int], character: tuple[int, int]) -> Image:
    """The picture in at most so many pixels, filled up to whole characters."""
    from PIL import Image

    with Image.open(path) as opened:
        geometry = GridGeometry.of(opened)
        picture = opened.convert("L" if opened.mode == "L" else "RGB")
    if geometry is not None:
        size = max(1, picture.width // geometry.factor), max(1, picture.height // geometry.factor)
        picture = picture.resize(size, Image.Resampling.NEAREST)
    times = min(most[0] // picture.width, most[1] // picture.height)
    if times >= 1 and geometry is not None:
        picture = picture.resize((times * picture.width, times * picture.height), Image.Resampling.NEAREST)
    else:
        picture.thumbnail(most, Image.Resampling.LANCZOS)
    width, height = (math.ceil(size / unit) * unit for size, unit in zip(picture.size, character, strict=True))
    whole = Image.new(picture.mode, (width, height), "white")
    whole.paste(picture)
    return whole


def _drawer(terminal: Terminal) -> Any:
    """The library's class for the terminal."""
    stdout = sys.__stdout__
    try:
        # Without it, the import asks nothing.
        sys.__stdout__ = None  # type: ignore[misc]
        module = importlib.import_module(f"textual_image.renderable.{terminal.protocol}")
    finally:
        sys.__stdout__ = stdout  # type: ignore[misc]
    from textual_image import _terminal

    # Nor does drawing: the size is known.
    setattr(_terminal.get_cell_size, "_result", _terminal.CellSize(terminal.width, terminal.height))  # noqa: B010
    return module.Image


@functools.cache
def _terminal() -> Terminal | None:
    """What standard output is, if it shows pictures."""
    try:
        import array
        import fcntl
        import termios
    except ImportError:
        # Windows has other calls for all of this.
        return None
    assert sys.__stdout__ is not None
    descriptor, name = sys.__stdout__.fileno(), os.environ.get("TERM", "")
    kitty = any(word in name for word in _KITTY)
    try:
        sizes = array.array("H", [0, 0, 0, 0])
        fcntl.ioctl(descriptor, termios.TIOCGWINSZ, sizes)
        rows, columns, width, height = sizes
        known = bool(rows and columns and width >= columns and height >= rows)
        answer = _answer(descriptor, kitty * _SUPPORT + (not known) * _CELL_SIZE + _ATTRIBUTES)
    except (OSError, termios.error):
        # Another's terminal, or one that is gone.
        return None
    attributes = re.search(r"\x1b\[\?([\d;]*)c", answer)
    if attributes is None:
        return None
    if kitty and re.search(r"\x1b_G[^\x1b]*;OK\x1b\\", answer):
        protocol = "tgp"
    elif "4" in attributes[1].split(";")[1:]:
        protocol = "sixel"
    else:
        return None
    if known:
        return Terminal(protocol, width // columns, height // rows)
    cell = re.search(r"\x1b\[6;(\d+);(\d+)t", answer)
    # Who does not tell is like a VT340, the first to have sixels.
    height, width = (int(cell[1]), int(cell[2])) if cell else (20, 10)
    return Terminal(protocol, width, height) if 0 < width < 200 and 0 < height < 400 else None


def _answer(descriptor: int, question: str) -> str:
    """What the terminal answers up to its attributes; "" without asking if that would disturb. Raises OSError."""
    import select
    import termios
    import tty

    # Whoever is in the background is stopped for this.
    if os.tcgetpgrp(descriptor) != os.getpgrp():
        return ""
    assert sys.__stdout__ is not None
    sys.__stdout__.flush()
    before, answer, end = termios.tcgetattr(descriptor), b"", time.monotonic() + PATIENCE
    try:
        # As it is, lines are waited for, and answers shown. What was typed is kept.
        tty.setcbreak(descriptor, termios.TCSANOW)
        if select.select([descriptor], [], [], 0)[0]:
            return ""
        os.write(descriptor, question.encode())
        while not re.search(rb"\x1b\[\?[\d;]*c$", answer) and (left := end - time.monotonic()) > 0:
            if select.select([descriptor], [], [], left)[0]:
                # One by one: what follows the answer is the user's.
                got = os.read(descriptor, 1)
                if not got:
                    break
                answer += got
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
    return answer.decode("latin-1")
