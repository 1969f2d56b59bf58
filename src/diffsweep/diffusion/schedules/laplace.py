"""Laplace: with time uniform, log-SNR has a Laplace distribution, so that training dwells on middle noise.

The curve is cut at finite log-SNR: r is linear in t and stops short of 0 and 1.

    logsnr = mean - scale sgn(1/2 - r) log(1 - 2 |r - 1/2|)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffsweep.diffusion.level import Level, preserving
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.mistakes import BadValue, above


class Laplace(Schedule):
    """Improved Noise Schedule for Diffusion Training (arXiv 2407.03297).

    Made for training: uniform steps in its time leave few for both ends, so sample with a spacing in log-SNR or noise.

    Args:
        mean: log-SNR where training dwells (the paper's mu).
        scale: How far it strays (the paper's b), > 0.
        logsnr_min: log-SNR at t = 1.
        logsnr_max: log-SNR at t = 0.

    Raises:
        ValueError: unless scale > 0 and logsnr_min < mean < logsnr_max, all finite.
    """

    def __init__(
        self, mean: float = 0.0, scale: float = 0.5, logsnr_min: float = -10.0, logsnr_max: float = 13.0
    ) -> None:
        above("scale", scale)
        if not -math.inf < logsnr_min < mean < logsnr_max < math.inf:
            raise BadValue("mean", mean, f"must lie between logsnr_min={logsnr_min} and logsnr_max={logsnr_max}")
        self.mean, self.scale = mean, scale
        self.range = (logsnr_min, logsnr_max)
        # The mass that is cut off at each end.
        self.first = math.exp((mean - logsnr_max) / scale) / 2
        self.rest = math.exp((logsnr_min - mean) / scale) / 2

    @staticmethod
    def path(logsnr: Tensor) -> Level:
        return preserving(logsnr)

    def logsnr(self, t: Tensor) -> Tensor:
        span = 1 - self.first - self.rest
        past, left = self.first + span * t, self.rest + span * (1 - t)
        return self.mean - self.scale * torch.where(past < left, (2 * past).log(), -(2 * left).log())

    def inverse(self, logsnr: Tensor) -> Tensor:
        z = (logsnr.clamp(*self.range) - self.mean) / self.scale
        tail = torch.exp(-z.abs()) / 2
        past = torch.where(z > 0, tail, 1 - tail)
        return (past - self.first) / (1 - self.first - self.rest)
