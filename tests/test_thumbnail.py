"""Pictures in the terminal: what a terminal on the other side of a real pseudo-terminal is asked, and what it gets."""

from __future__ import annotations

import base64
import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

import processes
from diffsweep.evaluation.pictures import grid
from made_runs import made

ANSI = "\x1b[?62;22c"
SIXEL = "\x1b[?62;4;22c"
OK = "\x1b_Gi=31;OK\x1b\\"


class Seen(NamedTuple):
    text: str
    flags: int


def see(
    program: list[str],
    answers: Mapping[str, str],
    environment: Mapping[str, str] | None = None,
    *,
    pixels: bool = True,
    typed: str = "",
) -> Seen:
    """All that a process writes to a terminal of 80 x 30 characters of 10 x 20 pixels which answers so."""
    # Whoever runs the tests may have said what his own terminal is like.
    his = ("NO_COLOR", "COLORTERM", "TERM", "COLUMNS", "LINES")
    kept = {key: value for key, value in os.environ.items() if key not in his}
    child, screen = pty.fork()
    if not child:
        os.execve(
            sys.executable,
            program,
            kept | {"TERM": "xterm-256color", "PYTHONWARNINGS": "ignore", **(environment or {})},
        )
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 800 * pixels, 600 * pixels))
    # The terminal is as it should be, and its size is known: the process may begin.
    os.write(screen, ("\n" + typed).encode())
    questions = re.compile("|".join(map(re.escape, answers)) or "(?!)")
    began, got, answered = time.monotonic(), b"", 0
    flags = termios.tcgetattr(screen)[3]
    try:
        while time.monotonic() < began + 20:
            if not select.select([screen], [], [], 1)[0]:
                continue
            try:
                got += os.read(screen, 65536)
            except OSError:
                break
            # In the order in which it was asked, and once for each.
            while found := questions.search(got.decode("latin-1"), answered):
                os.write(screen, answers[found[0]].encode())
                answered = found.end()
            if b"shown=" in got:
                flags = termios.tcgetattr(screen)[3]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(screen)
    return Seen(got.decode(errors="replace").replace("\r\n", "\n"), flags)


def show(picture: Path, *options: str) -> list[str]:
    return processes.command("show_picture", picture, *options)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """25 images of 8 x 8: 44 pixels each way, enlarged when written."""
    x = torch.randint(0, 256, (25, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    grid(x, tmp_path / "samples.png")
    return tmp_path / "samples.png"


def expected(path: Path, times: int) -> np.ndarray:
    """The grid, each pixel so many times."""
    small = np.asarray(Image.open(path))[:: 800 // 44, :: 800 // 44]
    assert small.shape == (44, 44)
    return small.repeat(times, 0).repeat(times, 1)


def sixels(text: str) -> np.ndarray:
    """What a terminal draws of the first sixel picture in `text`: red in percent."""
    found = re.search(r'\x1bP[\d;]*q"1;1;(\d+);(\d+)(.*?)\x1b\\', text, re.DOTALL)
    assert found is not None
    width, height = int(found[1]), int(found[2])
    image, colours, colour, x, y = np.zeros((height + 6, width)), dict[str, int](), 0, 0, 0
    for define, red, select_, times, what in re.findall(
        r"#(\d+);2;(\d+);\d+;\d+|#(\d+)|(?:!(\d+))?([?-~]|[$-])", found[3]
    ):
        if define:
            colours[define] = colour = int(red)
        elif select_:
            colour = colours[select_]
        elif what in "$-":
            x, y = 0, y + 6 * (what == "-")
        else:
            repeat = int(times or 1)
            for bit in range(6):
                if (ord(what) - 63) >> bit & 1:
                    image[y + bit, x : x + repeat] = colour
            x += repeat
    return image[:height]


def test_kitty_gets_the_very_pixels_whatever_colours_it_claims(picture: Path) -> None:
    # Over ssh no COLORTERM says that all colours are there, by which the characters name their picture.
    seen = see(show(picture), {"\x1b[c": OK + "\x1b[?62;52;c"}, {"TERM": "xterm-kitty"})
    assert "shown=True" in seen.text
    # The first is the question.
    sent = re.findall(r"\x1b_G([^;\x1b]*);([^\x1b]*)\x1b\\", seen.text)
    named = re.search(r"i=(\d+)", sent[1][0])
    assert named is not None
    content = base64.b64decode("".join(text for _, text in sent[1:]))
    drawn = np.asarray(Image.open(io.BytesIO(content)))
    # 360 lines of pixels are 0.6 of the screen: each pixel 8 times, in whole characters.
    assert drawn.shape == (360, 360)
    assert np.array_equal(drawn[:352, :352], expected(picture, 8))
    assert (drawn[352:] == 255).all()
    assert seen.text.count("\U0010eeee") == 36 * 18
    number = int(named[1])
    assert f"38;2;{number >> 16 & 255};{number >> 8 & 255};{number & 255}m\U0010eeee" in seen.text


def test_a_terminal_with_sixels_gets_the_very_pixels(picture: Path) -> None:
    seen = see(show(picture), {"\x1b[c": SIXEL})
    assert "shown=True" in seen.text
    assert "\x1b_G" not in seen.text
    assert "\x1b[16t" not in seen.text
    drawn = sixels(seen.text)
    assert drawn.shape == (360, 360)
    assert np.abs(drawn[:352, :352] - expected(picture, 8) / 2.55).max() <= 1
    # What follows stands below.
    assert seen.text.index("\x1bP") < seen.text.index("\x1b8") < seen.text.index("shown=")


def test_where_the_system_does_not_tell_the_size_of_a_character_the_terminal_does(picture: Path) -> None:
    seen = see(show(picture), {"\x1b[16t": "\x1b[6;12;6t", "\x1b[c": SIXEL}, pixels=False)
    # 0.6 of 30 lines are 216 pixels: 4 times 44, in whole characters of 6 x 12.
    assert sixels(seen.text).shape == (180, 180)
    seen = see(show(picture), {"\x1b[c": SIXEL}, pixels=False)
    assert sixels(seen.text).shape == (360, 360)


@pytest.mark.parametrize(
    ("answers", "name", "asked"),
    [
        ({}, "xterm-256color", "\x1b[c"),
        ({"\x1b[c": ANSI}, "xterm-256color", "\x1b[c"),
        ({"\x1b[c": ANSI}, "xterm-kitty", "\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[c"),
        (
            {"\x1b[c": "\x1b_Gi=31;EINVAL:no\x1b\\" + ANSI},
            "xterm-kitty",
            "\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[c",
        ),
    ],
    ids=["silent", "text only", "only called kitty", "refuses"],
)
def test_a_terminal_without_pictures_is_asked_once_and_left_as_it_was(
    picture: Path, answers: dict[str, str], name: str, asked: str
) -> None:
    seen = see(show(picture, "--again"), answers, {"TERM": name})
    assert seen.text.replace("\n", "", 1).startswith(asked + "shown=False\n")
    assert seen.text.count("\x1b[c") == 1
    assert float(seen.text.split()[-1]) < 5
    assert seen.flags & termios.ICANON
    assert seen.flags & termios.ECHO


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        pytest.param((), {"NO_COLOR": "1"}, id="NO_COLOR"),
        pytest.param((), {"TERM": "dumb"}, id="dumb"),
        pytest.param(("--without-library",), {}, id="no library"),
        pytest.param(("--background",), {}, id="background"),
    ],
)
def test_nothing_is_asked_where_nothing_can_be_shown(
    picture: Path, options: tuple[str, ...], environment: dict[str, str]
) -> None:
    assert see(show(picture, *options), {"\x1b[c": SIXEL}, environment).text.strip() == "shown=False"


def test_nothing_is_asked_for_a_picture_that_is_not_there(picture: Path) -> None:
    assert see(show(picture.with_suffix(".absent")), {"\x1b[c": SIXEL}).text.strip() == "shown=False"


def test_a_pipe_gets_no_escape_sequence(picture: Path) -> None:
    done = processes.run("show_picture", picture, "--at-once", env={**os.environ, "TERM": "xterm-kitty"}, check=True)
    assert done.stdout == "shown=False\n"


def test_what_the_user_typed_is_the_users(picture: Path) -> None:
    read = show(picture, "--read")
    # Before it was asked, then behind the answer.
    early = see(read, {"\x1b[c": SIXEL}, typed="ls\n")
    assert "\x1b[c" not in early.text
    assert "shown=False\nread=ls" in early.text
    late = see(read, {"\x1b[c": f"{SIXEL}ls\n"})
    assert "shown=True" in late.text
    assert "read=ls" in late.text


def test_a_run_and_the_best_of_a_sweep_are_shown_above_their_paths(tmp_path: Path) -> None:
    results = made(tmp_path, 3)
    seen = see(processes.command("show_pictures_of_runs", tmp_path), {"\x1b[c": SIXEL})
    assert seen.text.count("\x1b[c") == 1
    single, sweep = seen.text.split("shown=")
    best = min(results, key=lambda result: result["fd_digits"])
    for text, title, result in ((single, "pictures", results[0]), (sweep, "best pictures", best)):
        samples = f"fits/{result['fit']}/cells/{result['cell']}/samples.png"
        assert text.count("\x1bP") == 1
        assert text.index("\x1bP") < text.index(f"{title}  {tmp_path / samples}")
        small = np.asarray(Image.open(tmp_path / samples))[::8, ::8] / 2.55
        times = sixels(text).shape[0] // len(small)
        assert np.abs(sixels(text)[: times * len(small) : times, : times * len(small) : times] - small).max() <= 1
