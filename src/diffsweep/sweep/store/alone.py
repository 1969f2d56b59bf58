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
def alone(folder: Path, what: str, work: str) -> Iterator[Path | None]:
    """Hold off others for as long as a block runs; they wait with a line on standard error.

    The folder is removed once the block has ended as it should; whoever waited then finds none, and goes on without.

    Args:
        folder: of the lease, in which the block may put files aside.
        what: is lacking, for that line, as "real data".
        work: what whoever holds the lease does for it, as "computes their statistics".
    """

    def tell(holder: Process | None) -> None:
        say(f"{what}: {holder or 'another process'} {work}; waiting for it")

    try:
        held = Lease(folder).acquire(on_wait=tell)
    except (CannotWriteError, FileNotFoundError):
        # A cache that may only be read; or what was waited for is done.
        yield None
        return
    with held:
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
