"""Shows a picture in the terminal and prints `shown=True` or `shown=False`.

It waits for a line before, by which the terminal on the other side says that it is ready. `--again`: shows it a second
time and prints the seconds that both took. `--read`: prints the next line that was typed. `--without-library`: as if
textual-image were not installed. `--background`: does all that in a process group which is not the terminal's.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("picture", type=Path)
for option in ("--again", "--read", "--without-library", "--background", "--at-once"):
    parser.add_argument(option, action="store_true")
given = parser.parse_args()
if not given.at_once:
    input()
if given.background:
    subprocess.run([sys.executable, __file__, str(given.picture), "--at-once"], preexec_fn=os.setpgrp)
    sys.exit()
if given.without_library:
    sys.modules["textual_image"] = None  # type: ignore[assignment]

from diffsweep.report import console, terminal_image  # noqa: E402

start = time.monotonic()
print(f"shown={terminal_image.show(given.picture, console.here())}")
if given.again:
    terminal_image.show(given.picture, console.here())
    print(time.monotonic() - start)
if given.read:
    print("read=" + input())
