"""Variance exploding: sigma grows geometrically with time, alpha = 1; log-SNR is linear in time."""

from __future__ import annotations

import math

from torch import Tensor

from diffsweep.diffusion.level import Level, exploding
from diffsweep.diffusion.schedules.base import MOST_NOISE, Schedule
from diffsweep.mistakes import BadValue


class VE(Schedule):
    """Song et al. (arXiv 2011.13456, section 3.4: sigma_min (sigma_max / sigma_min)^t), with EDM's range as default.

    Args:
        sigma_min: Noise at t = 0, in units of the data.
        sigma_max: Noise at t = 1.

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max.
    """

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0) -> None:
        if not 0 < sigma_min < sigma_max < math.inf:
            raise BadValue("sigma_min", sigma_min, f"must be above 0 and below sigma_max={sigma_max}")
        if sigma_max > MOST_NOISE:
            raise BadValue("sigma_max", sigma_max, f"must be at most {MOST_NOISE:g}: single precision holds no more")
        self.start = -2 * math.log(sigma_min)
        self.stop = -2 * math.log(sigma_max)

    @staticmethod
    def path(logsnr: Tensor) -> Level:
        return exploding(logsnr)

    def logsnr(self, t: Tensor) -> Tensor:
        return self.start + (self.stop - self.start) * t

    def inverse(self, logsnr: Tensor) -> Tensor:
        return (logsnr - self.start) / (self.stop - self.start)
