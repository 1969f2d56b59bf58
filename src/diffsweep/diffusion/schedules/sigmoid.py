"""Sigmoid: alpha^2 is a logistic curve in time, from 1 at t = 0 to 0 at t = 1, cut at finite log-SNR.

With h half the width of the logistic's piece, its differences are sinh over cosh, and so curve and inverse are closed:

    alpha^2 / sigma^2 = c sinh(h (1 - r)) / sinh(h r),   c = cosh(start / 2 tau) / cosh(end / 2 tau)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffsweep.diffusion.level import Level, preserving
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.mistakes import BadValue, above

# Of the logistic function's piece, in its own units.
_LEAST_HALF = 1e-6


class Sigmoid(Schedule):
    """Jabri et al. (arXiv 2212.11972), in the form of On the Importance of Noise Scheduling (arXiv 2301.10972).

    Args:
        start: Argument of the logistic function at t = 0, in units of tau.
        end: The same at t = 1.
        tau: Temperature, > 0: smaller values spend more time at both ends.
        logsnr_min: log-SNR at t = 1.
        logsnr_max: log-SNR at t = 0.

    Raises:
        ValueError: unless start < end, 0 < tau <= 5e5 (end - start) and logsnr_min < logsnr_max, all finite.
    """

    def __init__(
        self,
        start: float = -3.0,
        end: float = 3.0,
        tau: float = 1.0,
        logsnr_min: float = -10.0,
        logsnr_max: float = 13.0,
    ) -> None:
        if not -math.inf < start < end < math.inf:
            raise BadValue("start", start, f"must be below end={end}, both finite")
        above("tau", tau)
        if not -math.inf < logsnr_min < logsnr_max < math.inf:
            raise BadValue("logsnr_min", logsnr_min, f"must be below logsnr_max={logsnr_max}, both finite")
        self.half = (end - start) / tau / 2
        # Of a straight piece of the logistic function nothing is left but rounding.
        if self.half < _LEAST_HALF:
            raise BadValue("tau", tau, f"must be at most {(end - start) / 2 / _LEAST_HALF:g} for these ends")
        self.offset = _log_cosh(start / tau / 2) - _log_cosh(end / tau / 2)
        self.range = (logsnr_min, logsnr_max)
        ends = torch.tensor([logsnr_max, logsnr_min], dtype=torch.float64)
        self.first = float(self._whole(ends)[0])
        self.last = float(self._whole(ends)[1])

    @staticmethod
    def path(logsnr: Tensor) -> Level:
        return preserving(logsnr)

    def logsnr(self, t: Tensor) -> Tensor:
        span = self.last - self.first
        # The distance from each end by itself: 1 - r would lose in float32 what little is left of it.
        past, left = self.first + span * t, (1 - self.last) + span * (1 - t)
        logs = (-torch.expm1(-2 * self.half * left)).log() - (-torch.expm1(-2 * self.half * past)).log()
        return logs + self.half * (left - past) + self.offset

    def inverse(self, logsnr: Tensor) -> Tensor:
        return (self._whole(logsnr.clamp(*self.range)) - self.first) / (self.last - self.first)

    def _whole(self, logsnr: Tensor) -> Tensor:
        """The place on the curve before it is cut."""
        below = self.offset - logsnr
        zero = torch.zeros_like(logsnr)
        return (torch.logaddexp(zero, below + self.half) - torch.logaddexp(zero, below - self.half)) / (2 * self.half)


def _log_cosh(x: float) -> float:
    return abs(x) + math.log1p(math.exp(-2 * abs(x))) - math.log(2)
