"""A spacing places the steps: ``steps + 1`` levels from noise to clean data, the last exactly clean (sigma = 0).

Spacings in time follow the schedule; spacings in noise or log-SNR use only its range.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from diffsweep.diffusion.level import CLEAN, Level
from diffsweep.diffusion.schedules.base import Schedule


class Spacing(Protocol):
    """Where the steps of a sampler stand."""

    def __call__(self, schedule: Schedule, steps: int) -> list[Level]:
        """``steps + 1`` levels of the schedule, noisiest first, the last one clean; steps >= 1."""
        ...


@dataclass(frozen=True)
class Time:
    """Uniform in the schedule's time, from t = 1 to t = 0 ("trailing" of arXiv 2305.08891, section 3.3)."""

    def __call__(self, schedule: Schedule, steps: int) -> list[Level]:
        return [*(schedule.level(1 - i / steps) for i in range(steps)), CLEAN]


@dataclass(frozen=True)
class LogSNR:
    """Uniform in log-SNR (DPM-Solver, arXiv 2206.00927, section 3.4), then one step to clean data.

    Args:
        noise_min: Noise sigma / alpha of the last level before clean data, cut to the schedule's own range.
        noise_max: Noise of the first level, likewise.
    """

    noise_min: float = 0.002
    noise_max: float = 80.0

    def __call__(self, schedule: Schedule, steps: int) -> list[Level]:
        low, high = _range(schedule, self.noise_min, self.noise_max)
        return _levels(schedule, (high ** (1 - u) * low**u for u in _units(steps)))


@dataclass(frozen=True)
class Karras:
    """Uniform in noise^(1/rho) (EDM, arXiv 2206.00364, eq. 5), then one step to clean data.

    Args:
        rho: Larger values put more steps at low noise, > 0.
        noise_min: Noise sigma / alpha of the last level before clean data, cut to the schedule's own range.
        noise_max: Noise of the first level, likewise.
    """

    rho: float = 7.0
    noise_min: float = 0.002
    noise_max: float = 80.0

    def __post_init__(self) -> None:
        if not self.rho > 0:
            raise ValueError(f"rho={self.rho} must be above 0")

    def __call__(self, schedule: Schedule, steps: int) -> list[Level]:
        low, high = (noise ** (1 / self.rho) for noise in _range(schedule, self.noise_min, self.noise_max))
        return _levels(schedule, ((high + u * (low - high)) ** self.rho for u in _units(steps)))


def _range(schedule: Schedule, noise_min: float, noise_max: float) -> tuple[float, float]:
    if not 0 < noise_min < noise_max < math.inf:
        raise ValueError(f"noise_min={noise_min} must be above 0 and below noise_max={noise_max}")
    low = max(noise_min, float(schedule.level(0.0).noise))
    high = min(noise_max, float(schedule.level(1.0).noise))
    if low >= high:
        raise ValueError(
            f"a spacing from noise_max={noise_max} to noise_min={noise_min} has nothing in common with this schedule, "
            f"whose noise goes from {float(schedule.level(1.0).noise):.4g} to {float(schedule.level(0.0).noise):.4g}"
        )
    return low, high


def _units(steps: int) -> list[float]:
    return [i / max(steps - 1, 1) for i in range(steps)]


def _levels(schedule: Schedule, noises: Iterable[float]) -> list[Level]:
    return [*(schedule.level(schedule.time(-2 * math.log(noise))) for noise in noises), CLEAN]
