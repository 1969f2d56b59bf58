"""Lines for the user on standard error."""

from __future__ import annotations

import contextlib
import sys


def say(*lines: str) -> None:
    """Print lines to standard error; a reader that has gone away is no reason to fail."""
    with contextlib.suppress(OSError):
        for line in lines:
            print(line, file=sys.stderr, flush=True)
