"""A number beside the one that real data reach against real data, in words."""

from __future__ import annotations

from diffsweep.report.format import number
from diffsweep.sweep.store.result import Measure

# So many times what real data reach is near it, or far.
_NEAR, _FAR = 1.5, 3.0


def verdict(measure: Measure) -> str:
    """What a number means beside its floor, as `3.1 times what real data reach`; empty if either is unknown.

    Distances that are estimated without bias scatter around zero where there is nothing to find, and may be negative.
    """
    value, floor = measure.value, measure.floor
    if value is None or floor is None:
        return ""
    reached = f"real data reach {number(floor)}"
    if measure.larger_is_better:
        if value >= floor or (measure.high is not None and measure.high >= floor):
            return f"as good as real data: {reached}"
        return f"{100 * value / floor:.0f} % of what real data reach, {number(floor)}" if floor > 0 else reached
    if value < 0:
        return f"below zero by chance, which an estimate without bias may be near zero: {reached}"
    if value <= floor or (measure.low is not None and measure.low <= floor):
        return f"as good as real data: {reached}"
    if floor <= 0:
        return f"above what real data reach, {number(floor)}, which is zero but for chance"
    times = value / floor
    said = f"{times:.{0 if times >= 100 else 1}f} times what real data reach, {number(floor)}"
    if times < _NEAR:
        return f"{said}: near real data"
    return f"{said}: undertrained, or too few steps" if times >= _FAR else said
