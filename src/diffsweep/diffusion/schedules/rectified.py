"""Rectified flow: alpha = 1 - t, sigma = t, from data to exactly pure noise along straight lines."""

from __future__ import annotations

import torch
from torch import Tensor

from diffsweep.diffusion.level import Level, straight
from diffsweep.diffusion.schedules.base import Schedule


class Rectified(Schedule):
    """Flow Straight and Fast (arXiv 2209.03003, eq. 1); also flow matching's optimal-transport path (arXiv 2210.02747).

    At t = 1 alpha is exactly 0: a network that predicts eps cannot serve it, one that predicts v, x0 or flow can.
    """

    @staticmethod
    def path(logsnr: Tensor) -> Level:
        return straight(logsnr)

    def logsnr(self, t: Tensor) -> Tensor:
        return 2 * ((1 - t).log() - t.log())

    def inverse(self, logsnr: Tensor) -> Tensor:
        return torch.sigmoid(-logsnr / 2)
