"""Zero terminal SNR: alpha is shifted and scaled so that t = 1 is exactly pure noise, as sampling assumes.

    alpha' = (alpha - alpha(1)) alpha(first) / (alpha(first) - alpha(1))   for t >= first

A chain's first step keeps its noise, so for a table of T betas ``first`` is 1 / T; nothing changes before it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from diffsweep.diffusion.level import Level, preserving
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.mistakes import BadValue


class ZeroSNR(Schedule):
    """Common Diffusion Noise Schedules and Sample Steps are Flawed (arXiv 2305.08891, algorithm 1).

    At t = 1 alpha is exactly 0: a network that predicts eps cannot serve it, one that predicts v, x0 or flow can.

    Args:
        inner: A variance-preserving schedule.
        first: Time up to which nothing changes, in [0, 1): 1 / T for a table of T betas, 0 for a continuous schedule.

    Raises:
        ValueError: for a schedule on another path, or first outside [0, 1).
    """

    def __init__(self, inner: Schedule, first: float = 0.001) -> None:
        if not 0 <= first < 1:
            raise BadValue("first", first, "must be at least 0 and below 1: it is a time")
        middle = inner.level(0.5)
        if not math.isclose(middle.alpha**2 + middle.sigma**2, 1, rel_tol=1e-9):
            raise ValueError(
                f"only a variance-preserving schedule (alpha^2 + sigma^2 = 1) can end at zero SNR by rescaling alpha, "
                f"but {type(inner).__name__.lower()} is not: choose cosine, linear, scaled_linear, sigmoid or vp"
            )
        self.inner = inner
        kept, end = inner.level(first), inner.level(1.0)
        self.first = kept.logsnr
        self.last = end.logsnr
        self.end = end.alpha
        # In u = 1 - alpha the map is u' = stretch u - excess; both are needed, as each alone cancels at one end.
        self.stretch = kept.alpha / (kept.alpha - end.alpha)
        self.excess = (self.stretch - 1) * kept.sigma**2 / (1 + kept.alpha)

    @staticmethod
    def path(logsnr: Tensor) -> Level:
        return preserving(logsnr)

    def logsnr(self, t: Tensor) -> Tensor:
        logsnr = self.inner.logsnr(t)
        alpha, u = _split(logsnr)
        scaled = torch.where(t < 1, self.stretch * (alpha - self.end), 0).clamp(min=0)
        return torch.where(logsnr > self.first, logsnr, _logsnr(scaled, self.stretch * u - self.excess))

    def inverse(self, logsnr: Tensor) -> Tensor:
        alpha, u = _split(logsnr)
        plain = _logsnr(alpha / self.stretch + self.end, (u + self.excess) / self.stretch).clamp(min=self.last)
        return self.inner.inverse(torch.where(logsnr > self.first, logsnr, plain))


def _split(logsnr: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and 1 - alpha, both to full precision."""
    alpha = (logsigmoid(logsnr) / 2).exp()
    return alpha, torch.sigmoid(-logsnr) / (1 + alpha)


def _logsnr(alpha: Tensor, u: Tensor) -> Tensor:
    return 2 * alpha.log() - (u * (1 + alpha)).log()
