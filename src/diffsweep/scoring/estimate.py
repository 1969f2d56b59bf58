"""An estimate of a number as results record it."""

from __future__ import annotations

from diffsweep.evaluation.interval import Estimate
from diffsweep.sweep.store.result import Measure


def measure_of(name: str, estimate: Estimate, floor: float | None = None) -> Measure:
    """The number `name` with its interval; `floor` is that of real samples. Fewer than two blocks give no interval."""
    if len(estimate.without) < 2:
        return Measure(name, estimate.value, floor=floor, by=estimate.by or None)
    low, high = estimate.interval
    return Measure(name, estimate.value, low, high, floor, estimate.by or None, tuple(estimate.without))
