"""Cosine: alpha = cos(angle), sigma = sin(angle), with an angle that is linear in time.

The ends are cut at finite log-SNR instead of by clipping betas, so that every target can be inverted at t = 1.
"""

from __future__ import annotations

import math

from torch import Tensor

from diffsweep.diffusion.level import Level, preserving
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.mistakes import BadValue


class Cosine(Schedule):
    """Improved DDPM (arXiv 2102.09672, eq. 17), in the log-SNR form of simple diffusion (arXiv 2301.11093, eq. 4).

    Args:
        logsnr_min: log-SNR at t = 1.
        logsnr_max: log-SNR at t = 0.

    Raises:
        ValueError: unless logsnr_min < logsnr_max, both finite.
    """

    def __init__(self, logsnr_min: float = -10.0, logsnr_max: float = 13.0) -> None:
        if not -math.inf < logsnr_min < logsnr_max < math.inf:
            raise BadValue("logsnr_min", logsnr_min, f"must be below logsnr_max={logsnr_max}, both finite")
        self.start = math.atan(math.exp(-logsnr_max / 2))
        self.stop = math.atan(math.exp(-logsnr_min / 2))

    @staticmethod
    def path(logsnr: Tensor) -> Level:
        return preserving(logsnr)

    def logsnr(self, t: Tensor) -> Tensor:
        return -2 * (self.start + (self.stop - self.start) * t).tan().log()

    def inverse(self, logsnr: Tensor) -> Tensor:
        return ((-logsnr / 2).exp().atan() - self.start) / (self.stop - self.start)
