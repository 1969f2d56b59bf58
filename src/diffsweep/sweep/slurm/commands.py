"""Runs the commands of SLURM, and reads the forms in which they write job ids and times."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

_TIMEOUT = 60.0
# Arguments of one command; a line of 128 KiB is what Linux takes.
MANY = 5000


def available() -> bool:
    """Whether jobs can be submitted from this machine."""
    return shutil.which("sbatch") is not None and shutil.which("srun") is not None


def max_array_size() -> int:
    """How many jobs this cluster takes in one array, at least 1."""
    done = run(["scontrol", "show", "config"])
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout if done else "", re.MULTILINE)
    # 0 says that there are no arrays; 1001 is SLURM's own default.
    return max(1, int(found[1])) if found else 1001


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
    """The command's end; None if there is no such command, or no end."""
    # The user's own defaults for the output of squeue and sacct would hide jobs from us.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SACCT_"))}
    try:
        return subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def whole_jobs(ids: Iterable[str]) -> list[str]:
    """The jobs and arrays that these ids are of."""
    return sorted({name.partition("_")[0] for name in ids})


def expanded(name: str) -> list[str]:
    """All ids of `812_[1-3,7%2]`, as SLURM writes tasks that never started; `812` and `812_3` are themselves."""
    base, bracket, tasks = name.rstrip("]").partition("_[")
    if not bracket:
        return [name]
    found = []
    for part in tasks.partition("%")[0].split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            found += [f"{base}_{task}" for task in range(int(first), int(last or first) + 1)]
    return found


def chunks(items: Sequence[Any], size: int = MANY) -> Iterator[list[Any]]:
    """`items` in lists of at most `size`."""
    for first in range(0, len(items), size):
        yield list(items[first : first + size])


def known_text(text: str) -> str | None:
    """What SLURM writes in a column, None where that means nothing."""
    return None if text in ("", "None", "None assigned", "(null)", "N/A") else text


def seconds(elapsed: str) -> float:
    """Seconds of `D-HH:MM:SS` with its left parts missing."""
    days, _, clock = elapsed.rpartition("-")
    total = 0
    for part in clock.split(":"):
        if not part.isdigit():
            return 0.0
        total = 60 * total + int(part)
    return float(total + 86400 * int(days or 0))
