"""Karras: noise^(1/rho) is linear in time, alpha = 1: EDM's sampling steps, read as a schedule."""

from __future__ import annotations

import math

from torch import Tensor

from diffsweep.diffusion.level import Level, exploding
from diffsweep.diffusion.schedules.base import MOST_NOISE, Schedule
from diffsweep.mistakes import BadValue, above


class Karras(Schedule):
    """Elucidating the Design Space of Diffusion-Based Generative Models (arXiv 2206.00364, eq. 5) in continuous time.

    Args:
        rho: Larger values spend more time at low noise, > 0; 1 is linear in noise.
        sigma_min: Noise at t = 0, in units of the data.
        sigma_max: Noise at t = 1.

    Raises:
        ValueError: unless rho > 0 and 0 < sigma_min < sigma_max, all finite.
    """

    def __init__(self, rho: float = 7.0, sigma_min: float = 0.002, sigma_max: float = 80.0) -> None:
        above("rho", rho)
        if not 0 < sigma_min < sigma_max < math.inf:
            raise BadValue("sigma_min", sigma_min, f"must be above 0 and below sigma_max={sigma_max}")
        if sigma_max > MOST_NOISE:
            raise BadValue("sigma_max", sigma_max, f"must be at most {MOST_NOISE:g}: single precision holds no more")
        self.rho = rho
        self.start = sigma_min ** (1 / rho)
        self.stop = sigma_max ** (1 / rho)

    @staticmethod
    def path(logsnr: Tensor) -> Level:
        return exploding(logsnr)

    def logsnr(self, t: Tensor) -> Tensor:
        return -2 * self.rho * (self.start + (self.stop - self.start) * t).log()

    def inverse(self, logsnr: Tensor) -> Tensor:
        return ((-logsnr / (2 * self.rho)).exp() - self.start) / (self.stop - self.start)
