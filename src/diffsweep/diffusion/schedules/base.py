"""A schedule walks a path in time: t in [0, 1] -> logsnr, decreasing, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from diffsweep.diffusion.level import Level

# Largest sigma of a schedule whose noise grows: powers of it must be numbers in single precision.
MOST_NOISE = 1e9


class Schedule(ABC):
    """A decreasing, invertible curve logsnr(t) on a path.

    A subclass states its path (a function logsnr -> Level such as ``preserving``) and the curve with its inverse, both
    on tensors of any shape and floating type.
    """

    @staticmethod
    @abstractmethod
    def path(logsnr: Tensor) -> Level:
        """The level with this logsnr."""

    @abstractmethod
    def logsnr(self, t: Tensor) -> Tensor:
        """The log signal-to-noise ratio at time t in [0, 1]; may be inf at t = 0 and -inf at t = 1."""

    @abstractmethod
    def inverse(self, logsnr: Tensor) -> Tensor:
        """The time at which the curve has this logsnr; values beyond its ends give times outside [0, 1] or the ends."""

    @final
    def level(self, t: float | Tensor) -> Level:
        """The level at time t: floats in float64 for a float, tensors of t's shape and type for a tensor.

        Raises:
            ValueError: if a float t is not in [0, 1].
        """
        if isinstance(t, Tensor):
            return self.path(self.logsnr(t))
        if not 0 <= t <= 1:
            raise ValueError(f"time t={t} is outside [0, 1] (0 is data, 1 is noise)")
        return self.levels(self.logsnr(torch.tensor([t], dtype=torch.float64)))[0]

    @final
    def levels(self, logsnr: Tensor) -> list[Level]:
        """The levels of this path with the given log-SNRs, (K,), as floats."""
        path = self.path(logsnr)
        return [Level(*pair) for pair in zip(path.alpha.tolist(), path.sigma.tolist(), strict=True)]

    @final
    def time(self, logsnr: float | Tensor) -> float | Tensor:
        """The time in [0, 1] with this logsnr, the inverse of ``level(t).logsnr``, clamped to the schedule's ends."""
        if isinstance(logsnr, Tensor):
            return self.inverse(logsnr).clamp(0, 1)
        return float(self.inverse(torch.tensor(logsnr, dtype=torch.float64)).clamp(0, 1))
