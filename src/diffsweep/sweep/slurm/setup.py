"""The setup of a SLURM job: the user's shell lines, of which a failing one fails the job."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence

# First words of our line in the log of a job whose setup failed.
SETUP_COMPLAINT = "diffsweep: "


def checked_setup(lines: Sequence[str]) -> list[str]:
    """Shell lines that run `lines` and end the job, with a line in its log, if one of them fails.

    Lines that only together are a command, such as those of a loop, are checked together.
    """
    checked: list[str] = []
    part: list[str] = []
    for number, line in enumerate(lines, 1):
        part.append(line)
        if number < len(lines) and not _is_complete("\n".join(part)):
            continue
        text = " ".join(" ".join(part).split())
        message = shlex.quote(f"{SETUP_COMPLAINT}setup failed: {text}: exit code ")
        checked += [
            *part,
            f"diffsweep_code=$?; [ $diffsweep_code -eq 0 ] || {{ echo {message}$diffsweep_code; exit 1; }}",
        ]
        part = []
    return checked


def _is_complete(text: str) -> bool:
    """Whether bash takes `text` for whole commands; true where there is no bash to ask."""
    try:
        done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return True
    return done.returncode == 0
