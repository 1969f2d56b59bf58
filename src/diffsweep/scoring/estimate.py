"""An estimate of a number as results record it."""

from __future__ import annotations

from torch import Tensor

from diffsweep.evaluation.features import Features
from diffsweep.evaluation.interval import Estimate
from diffsweep.sweep.store.result import Measure


def measure_of(name: str, estimate: Estimate, floor: float | None = None) -> Measure:
    """The number `name` with its interval; `floor` is that of real samples. Fewer than two blocks give no interval."""
    if len(estimate.without) < 2:
        return Measure(name, estimate.value, floor=floor, by=estimate.by or None)
    low, high = estimate.interval
    return Measure(name, estimate.value, low, high, floor, estimate.by or None, tuple(estimate.without))


def mean_of(name: str, values: Tensor, by: str, floor: float | None = None) -> Measure:
    """The mean of values (N,) of N examples or samples, with its interval.

    Args:
        name: of the number.
        values: finite ones make a number.
        by: what measured them, with its settings.
        floor: the same of real samples; None where that means nothing.
    """
    broken = int((~values.isfinite()).sum())
    if broken:
        return Measure(name, None, by=by, reason=f"{broken} of {len(values)} values are not finite")
    each = Features({"features": values[:, None]})
    without = [float(each.without(block)["features"].mean()) for block in range(len(each.blocks))]
    return measure_of(name, Estimate(float(values.mean()), without, by), floor)
