"""One process at a time computes the statistics of real data that a cache folder lacks."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from diffsweep.sweep.store import alone as store


def alone(folder: Path) -> AbstractContextManager[Path | None]:
    """See `diffsweep.evaluation.reference.Alone`; others are waited for with a line on standard error."""
    return store.alone(folder, "real data", "computes their statistics")
