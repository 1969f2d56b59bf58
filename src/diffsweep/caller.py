"""What a run tells the Python process that asked for it: where its results will lie, or why it is refused.

`diffsweep.run` starts the command line in a process of its own and names a file in the environment, which the run
writes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from diffsweep.files import write_atomic

_VARIABLE = "DIFFSWEEP_CALLER"


def is_told() -> bool:
    """Whether another process asked for this run and is told of it."""
    return bool(os.environ.get(_VARIABLE))


def tell(**values: str) -> None:
    """Add to what the calling process is told, if there is one."""
    name = os.environ.get(_VARIABLE)
    if name:
        write_atomic(Path(name), json.dumps(read(Path(name)) | values))


def read(file: Path) -> dict[str, Any]:
    """What has been told in `file` so far."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def environment(file: Path) -> dict[str, str]:
    """The environment of a run that shall tell in `file`, and says plain lines where it has no terminal."""
    # A notebook's kernel asks for colours, which rich takes for a terminal.
    asked = ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
    return {name: value for name, value in os.environ.items() if name not in asked} | {_VARIABLE: str(file)}
