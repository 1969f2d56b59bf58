"""One process at a time computes what a cache folder lacks: a lease in a folder that is there only while it does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffsweep.files import CannotWriteError
from diffsweep.messages import say
from diffsweep.sweep.store.lease import Lease
from diffsweep.sweep.store.process import Process


@contextmanager
def alone(folder: Path) -> Iterator[Path | None]:
    """See `diffsweep.evaluation.reference.Alone`; others are waited for with a line on standard error.

    The folder is removed once the block has ended as it should; whoever waited then finds none, and goes on without.
    """
    try:
        held = Lease(folder).acquire(on_wait=_tell)
    except (CannotWriteError, FileNotFoundError):
        # A cache that may only be read; or what was waited for is done.
        yield None
        return
    with held:
        yield folder
        shutil.rmtree(folder, ignore_errors=True)


def _tell(holder: Process | None) -> None:
    say(f"real data: {holder or 'another process'} computes their statistics; waiting for it")
