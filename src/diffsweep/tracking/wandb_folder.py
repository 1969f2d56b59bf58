"""W&B's files in the folder of a fit, cell or sweep: which runs are there, what was sent, and our note about it.

Offline, W&B cannot know what its server has, and `wandb sync` of a second folder would double steps. Folders that it
must not send are marked as sent; `diffsweep wandb-sync` asks the server and sends what it lacks.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from diffsweep.files import read_json, write_json

# Our note, relative to the folder of a record.
NOTE = "wandb/told.json"


def read_note(folder: Path) -> dict[str, Any]:
    """Our note about the W&B run of the record in `folder`; empty if there is none that can be read.

    `group` and `choices` that the run was begun with; `record`, the digest of the record that W&B has all of; `where`,
    the server and project (or "offline"); `run`, the name of the folder of W&B's files.
    """
    with contextlib.suppress(OSError, ValueError):
        return read_json(folder / NOTE) or {}
    return {}


def update_note(folder: Path, values: dict[str, object]) -> None:
    """Replace entries of our note about the W&B run of the record in `folder`. Raises CannotWriteError."""
    write_json(folder / NOTE, read_note(folder) | values)


def earlier_runs(folder: Path, name: str, current: Path) -> list[Path]:
    """Folders of earlier W&B runs with the id `name`, but for the folder `current`."""
    return [path for path in (folder / "wandb").glob(f"*run-*-{name}") if path.name != current.name]


def was_sent(run: Path) -> bool:
    """Whether the W&B run in the folder `run` was sent, or is marked so."""
    return not run.name.startswith("offline-") or bool(list(run.glob("*.synced")))


def mark_as_sent(run: Path, name: str) -> None:
    """Have `wandb sync` leave the offline run with the id `name` in the folder `run` alone."""
    if run.name.startswith("offline-"):
        with contextlib.suppress(OSError):
            (run / f"run-{name}.wandb.synced").touch()
