"""An estimate of a number as results record it."""

from __future__ import annotations

from torch import Tensor

from diffsweep.evaluation.features import Features
from diffsweep.evaluation.interval import Estimate
from diffsweep.sweep.store.result import Measure


def measure_of(
    name: str, estimate: Estimate, floor: float | None = None, reconstruction: float | None = None
) -> Measure:
    """The number `name` with its interval; fewer than two blocks give no interval.

    Args:
        name: Of the number.
        estimate: It, and what it would be without each block of samples.
        floor: That of real samples.
        reconstruction: That of real samples after an autoencoder.
    """
    known = {"floor": floor, "by": estimate.by or None, "reconstruction": reconstruction}
    if len(estimate.without) < 2:
        return Measure(name, estimate.value, **known)
    low, high = estimate.interval
    return Measure(name, estimate.value, low, high, jackknife=tuple(estimate.without), **known)


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
