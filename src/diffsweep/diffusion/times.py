"""Which times a training sees: each distribution is a map from a uniform u in [0, 1) to t, its quantile function.

Drawing the u of a batch one per stratum (low discrepancy) therefore works for every distribution alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diffsweep.diffusion.schedules.base import Schedule


class Times(Protocol):
    """A distribution of training times."""

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        """Times in (0, 1], (N,), from uniforms in [0, 1), (N,)."""
        ...


@dataclass(frozen=True)
class Uniform:
    """t ~ U(0, 1] (DDPM, arXiv 2006.11239, algorithm 1, in continuous time)."""

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        # 1 - u is never 0, where sigma = 0 on some schedules and x0 leaves nothing to predict.
        return 1 - u


@dataclass(frozen=True)
class LogNormal:
    """ln(sigma / alpha) ~ N(mean, std^2) (EDM, arXiv 2206.00364, table 1), on any schedule, cut at its ends.

    Args:
        mean: Mean of the log noise.
        std: Its standard deviation, > 0.
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        if not 0 < self.std < math.inf:
            raise ValueError(f"diffuser.times.std={self.std} must be above 0")

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        tiny = torch.finfo(u.dtype).eps
        log_noise = self.mean + self.std * torch.special.ndtri(u.clamp(tiny, 1 - tiny))
        return torch.as_tensor(schedule.time(-2 * log_noise)).clamp(min=tiny)


@dataclass(frozen=True)
class LogitNormal:
    """logit(t) ~ N(mean, std^2) (Scaling Rectified Flow Transformers, arXiv 2403.03206, eq. 19).

    Args:
        mean: Mean of logit(t): above 0 prefers noise, below 0 prefers data.
        std: Its standard deviation, > 0.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.std < math.inf:
            raise ValueError(f"diffuser.times.std={self.std} must be above 0")

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        tiny = torch.finfo(u.dtype).eps
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u.clamp(tiny, 1 - tiny)))


def uniforms(n: int, *, stratified: bool, generator: torch.Generator | None = None) -> Tensor:
    """n uniforms in [0, 1), float32: independent, or one in each of n equal strata, in random order.

    Strata lower the variance of the loss (Variational Diffusion Models, arXiv 2107.00630, appendix I.1).
    """
    u = torch.rand(n, generator=generator)
    if not stratified:
        return u
    return ((torch.randperm(n, generator=generator) + u) / n).clamp(max=1 - 2**-24)
