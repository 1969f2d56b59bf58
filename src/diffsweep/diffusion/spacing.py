"""A spacing places the steps: ``steps + 1`` levels from noise to clean data, the last exactly clean (sigma = 0).

Spacings in time follow the schedule; spacings in noise or log-SNR use only its range.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diffsweep.diffusion.level import CLEAN, Level
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.mistakes import BadValue, above, share


class Spacing(Protocol):
    """Where the steps of a sampler stand."""

    def __call__(self, schedule: Schedule, steps: int) -> list[Level]:
        """``steps + 1`` levels of the schedule, noisiest first, the last one clean; steps >= 1."""
        ...


@dataclass(frozen=True)
class Time:
    """Uniform in the schedule's time, from t = 1 to t = 0 ("trailing" of arXiv 2305.08891, section 3.3).

    Args:
        first: Time of the first level, in (0, 1]; a little below 1 for solvers that cannot start from pure noise.
        power: 2 is DDIM's quadratic spacing (arXiv 2010.02502, appendix D.2), which puts more steps near the data.
    """

    first: float = 1.0
    power: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.first <= 1:
            raise BadValue("first", self.first, "must be above 0 and at most 1 (pure noise)")
        if not self.power > 0:
            raise BadValue("power", self.power, "must be above 0 (1 is uniform, 2 quadratic)")

    def __call__(self, schedule: Schedule, steps: int) -> list[Level]:
        return _at_times(schedule, self.first * (1 - _ramp(steps, steps)) ** self.power)


@dataclass(frozen=True)
class Leading:
    """Uniform in time but without t = 1 ("leading" of arXiv 2305.08891, section 3.3): how DDPM and DDIM were first run.

    The first level has some signal left, of which the start from pure noise knows nothing; kept for comparison.

    Args:
        last: Time of the last level before clean data, in (0, 1); 1/1000 is the first point of DDPM's chain.
    """

    last: float = 0.001

    def __post_init__(self) -> None:
        share("last", self.last, zero=False, one=False)

    def __call__(self, schedule: Schedule, steps: int) -> list[Level]:
        return _at_times(schedule, self.last + (1 - self.last) * (1 - (_ramp(steps, steps) + 1 / steps)))


@dataclass(frozen=True)
class Linspace:
    """Uniform in time from t = 1 to a last time above 0, then one step to clean data (arXiv 2305.08891, section 3.3).

    Args:
        last: Time of the last level before clean data, in (0, 1).
    """

    last: float = 0.001

    def __post_init__(self) -> None:
        share("last", self.last, zero=False, one=False)

    def __call__(self, schedule: Schedule, steps: int) -> list[Level]:
        return _at_times(schedule, 1 - (1 - self.last) * _ramp(steps))


@dataclass(frozen=True)
class Beta:
    """Quantiles of a Beta distribution of times (Beta Sampling is All You Need, arXiv 2407.12173).

    Args:
        a: First parameter, > 0: below 1 puts steps near the data.
        b: Second parameter, > 0: below 1 puts steps near pure noise.
    """

    a: float = 0.6
    b: float = 0.6

    def __post_init__(self) -> None:
        for key, value in (("a", self.a), ("b", self.b)):
            above(key, value)

    def __call__(self, schedule: Schedule, steps: int) -> list[Level]:
        edges, below = _beta(self.a, self.b)
        return _at_times(schedule, _interpolated(1 - _ramp(steps, steps), below, edges))


@dataclass(frozen=True)
class FlowTime:
    """Quantiles of a Beta distribution in the time of straight paths, whatever the schedule's own path and time.

    That time is u = n / (shift + n) for the noise n = sigma / alpha: with shift 1 it is t of rectified flow (arXiv
    2209.03003), with another that of Stable Diffusion 3 (arXiv 2403.03206, eq. 23). The distribution is cut to what the
    schedule reaches.

    Args:
        a: First parameter, > 0: below 1 puts steps near the data.
        b: Second parameter, > 0: below 1 puts steps near pure noise.
        shift: The noise at u = 1/2, > 0; about the standard deviation of the data is a good one.
    """

    a: float = 1.0
    b: float = 1.0
    shift: float = 1.0

    def __post_init__(self) -> None:
        for key, value in (("a", self.a), ("b", self.b), ("shift", self.shift)):
            above(key, value)

    def __call__(self, schedule: Schedule, steps: int) -> list[Level]:
        edges, below = _beta(self.a, self.b)
        noises = torch.tensor([float(schedule.level(t).noise) for t in (0.0, 1.0)], dtype=torch.float64)
        low, high = _interpolated(1 / (1 + self.shift / noises), edges, below)
        times = _interpolated(high.lerp(low, _ramp(steps, steps)), below, edges)
        return _at_noises(schedule, self.shift * times / (1 - times))


@dataclass(frozen=True)
class LogSNR:
    """From noise_max to noise_min along log noise = log_max + u^rho (log_min - log_max), then one step to clean data.

    Rho 1 is uniform in log-SNR (DPM-Solver, arXiv 2206.00927, section 3.4), also known as exponential.

    Args:
        rho: Above 1 puts more steps at high noise (k-diffusion's polyexponential), > 0.
        noise_min: Noise sigma / alpha of the last level before clean data, cut to the schedule's own range; 0.01 is
            about one grey level of 256 in [-1, 1].
        noise_max: Noise of the first level, likewise.
    """

    rho: float = 1.0
    noise_min: float = 0.01
    noise_max: float = 80.0

    def __post_init__(self) -> None:
        above("rho", self.rho)

    def __call__(self, schedule: Schedule, steps: int) -> list[Level]:
        low, high = (math.log(noise) for noise in _range(schedule, self.noise_min, self.noise_max))
        return _at_noises(schedule, torch.exp(high + _ramp(steps) ** self.rho * (low - high)))


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
        above("rho", self.rho)

    def __call__(self, schedule: Schedule, steps: int) -> list[Level]:
        low, high = (noise ** (1 / self.rho) for noise in _range(schedule, self.noise_min, self.noise_max))
        return _at_noises(schedule, (high + _ramp(steps) * (low - high)) ** self.rho)


@dataclass(frozen=True)
class Given:
    """A given list of noise levels, then one step to clean data; other numbers of steps interpolate their logarithms.

    Interpolation is that of Align Your Steps (arXiv 2404.14507), whose tables can be used as they are.

    Args:
        noises: Noise sigma / alpha of each level, falling, above 0, at least two; a schedule that does not reach all
            of them gets the part that it reaches.
    """

    noises: Sequence[float] = (80.0, 20.0, 5.0, 1.5, 0.6, 0.25, 0.1, 0.03, 0.002)

    def __post_init__(self) -> None:
        # A list, as YAML gives it, cannot be hashed.
        object.__setattr__(self, "noises", _falling(self.noises, "sampler.spacing.noises"))

    def __call__(self, schedule: Schedule, steps: int) -> list[Level]:
        return _at_noises(schedule, _from_table(self.noises, schedule, steps).exp())


@dataclass(frozen=True)
class Optimal:
    """Levels fitted for some numbers of steps (see ``fitting``); numbers between two of them mix the two.

    Args:
        tables: A list of noise levels for each number of steps, each falling, the shortest first.
    """

    tables: Sequence[Sequence[float]]

    def __post_init__(self) -> None:
        tables = tuple(_falling(table, f"tables[{i}]") for i, table in enumerate(self.tables))
        if not tables or any(len(less) >= len(more) for less, more in itertools.pairwise(tables)):
            lengths = [len(table) for table in tables]
            raise BadValue("tables", "[...]", f"must be one or more, each longer than the one before, not {lengths}")
        object.__setattr__(self, "tables", tables)

    def __call__(self, schedule: Schedule, steps: int) -> list[Level]:
        less = max((table for table in self.tables if len(table) <= steps), key=len, default=self.tables[0])
        more = min((table for table in self.tables if len(table) >= steps), key=len, default=self.tables[-1])
        fraction = math.log(steps / len(less)) / math.log(len(more) / len(less)) if len(more) > len(less) else 0.0
        low, high = (_from_table(table, schedule, steps) for table in (less, more))
        return _at_noises(schedule, low.lerp(high, fraction).exp())


def _falling(noises: Sequence[float], what: str) -> tuple[float, ...]:
    noises = tuple(float(noise) for noise in noises)
    if len(noises) < 2 or min(noises) <= 0 or not all(map(math.isfinite, noises)):
        raise BadValue(what, list(noises), "must be finite numbers above 0, at least two")
    if any(after >= before for before, after in itertools.pairwise(noises)):
        raise BadValue(what, list(noises), "must fall from one to the next")
    return noises


class NoCommonNoiseError(ValueError):
    """The levels of noise that a spacing asks for are none that the schedule has."""


def _from_table(noises: Sequence[float], schedule: Schedule, steps: int) -> Tensor:
    """The logarithms of as many levels as steps, from the part of the table that the schedule reaches."""
    known = torch.tensor(noises, dtype=torch.float64).log()
    place = torch.linspace(0, 1, len(known), dtype=torch.float64)
    ends = -torch.tensor(_range(schedule, noises[-1], noises[0]), dtype=torch.float64).log()
    low, high = _interpolated(ends, -known, place)
    return _interpolated(high.lerp(low, _ramp(steps)), place, known)


def _range(schedule: Schedule, noise_min: float, noise_max: float) -> tuple[float, float]:
    if not 0 < noise_min < noise_max < math.inf:
        raise BadValue("noise_min", noise_min, f"must be above 0 and below noise_max={noise_max}")
    low = max(noise_min, float(schedule.level(0.0).noise))
    high = min(noise_max, float(schedule.level(1.0).noise))
    if low >= high:
        raise NoCommonNoiseError(
            f"a spacing from noise_max={noise_max} to noise_min={noise_min} has nothing in common with this schedule, "
            f"whose noise goes from {float(schedule.level(1.0).noise):.4g} to {float(schedule.level(0.0).noise):.4g}"
        )
    return low, high


def _ramp(steps: int, whole: int | None = None) -> Tensor:
    """``steps`` numbers from 0, one ``whole``-th apart; by default the last one is 1."""
    return torch.arange(steps, dtype=torch.float64) / (max(steps - 1, 1) if whole is None else whole)


def _beta(a: float, b: float) -> tuple[Tensor, Tensor]:
    """Points of [0, 1], and how much of the distribution Beta(a, b) lies below each."""
    # In the angle with t = sin^2 the density is sin^(2a-1) cos^(2b-1), which the midpoint rule integrates well.
    angle = (torch.arange(20_000, dtype=torch.float64) + 0.5) * (math.pi / 40_000)
    mass = (angle.sin() ** (2 * a - 1) * angle.cos() ** (2 * b - 1)).cumsum(0)
    below = torch.cat([mass.new_zeros(1), mass / mass[-1]])
    return torch.linspace(0, math.pi / 2, len(below), dtype=torch.float64).sin() ** 2, below


def _interpolated(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Linear interpolation of the points (x, y), x rising, at these places."""
    right = torch.searchsorted(x, at).clamp(1, len(x) - 1)
    fraction = (at - x[right - 1]) / (x[right] - x[right - 1])
    return y[right - 1].lerp(y[right], fraction)


def _at_times(schedule: Schedule, times: Tensor) -> list[Level]:
    return [*schedule.levels(schedule.logsnr(times)), CLEAN]


def _at_noises(schedule: Schedule, noises: Tensor) -> list[Level]:
    return [*schedule.levels(-2 * noises.log()), CLEAN]
