"""A list of betas or of noise levels as a continuous schedule, exact at the table's own points.

Point i of the table (i = 1 ... T) stands at t = i / T and t = 0 is clean data. Between the points of a chain of betas
log(alpha^2) is linear, which is the continuous VP process whose rate is constant between them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from diffsweep.diffusion.level import Level, exploding, preserving
from diffsweep.diffusion.schedules.base import Schedule


class Tabulated(Schedule):
    """A schedule from any list of betas.

    Args:
        betas: T variances of the forward chain, each in (0, 1).

    Raises:
        ValueError: for an empty table or a beta outside (0, 1).
    """

    def __init__(self, betas: Sequence[float]) -> None:
        table = torch.as_tensor(betas, dtype=torch.float64)
        wrong = (table <= 0) | (table >= 1)
        if not len(table) or wrong.any():
            bad = f"betas[{int(wrong.nonzero()[0])}]={float(table[wrong][0])}" if len(table) else "an empty list"
            raise ValueError(f"betas must each lie strictly between 0 and 1, but got {bad}")
        self.log_alpha2 = torch.cat([table.new_zeros(1), torch.log1p(-table).cumsum(0)])

    @staticmethod
    def path(logsnr: Tensor) -> Level:
        return preserving(logsnr)

    def logsnr(self, t: Tensor) -> Tensor:
        log_alpha2 = _interpolate(self.log_alpha2.to(t), t)
        return log_alpha2 - (-torch.expm1(log_alpha2)).log()

    def inverse(self, logsnr: Tensor) -> Tensor:
        return _locate(-self.log_alpha2.to(logsnr), -torch.nn.functional.logsigmoid(logsnr))


class TabulatedSigmas(Schedule):
    """A schedule from any list of noise levels, alpha = 1: sigma is interpolated linearly, from 0 at t = 0.

    Args:
        sigmas: T noise levels in units of the data, rising, each > 0; sigma i (i = 1 ... T) stands at t = i / T.

    Raises:
        ValueError: for an empty table, or noise levels that do not rise from above 0.
    """

    def __init__(self, sigmas: Sequence[float]) -> None:
        if not len(sigmas):
            raise ValueError("sigmas must have at least one noise level, but got an empty list")
        for i, (below, sigma) in enumerate(pairwise([0.0, *sigmas])):
            if not below < sigma < math.inf:
                raise ValueError(f"sigmas must rise, each finite and above 0, but sigmas[{i}]={sigma} follows {below}")
        self.sigmas = torch.tensor([0.0, *sigmas], dtype=torch.float64)

    @staticmethod
    def path(logsnr: Tensor) -> Level:
        return exploding(logsnr)

    def logsnr(self, t: Tensor) -> Tensor:
        return -2 * _interpolate(self.sigmas.to(t), t).log()

    def inverse(self, logsnr: Tensor) -> Tensor:
        return _locate(self.sigmas.to(logsnr), (-logsnr / 2).exp())


def _interpolate(table: Tensor, t: Tensor) -> Tensor:
    """The table's value at time t: point i of 0 ... T stands at i / T."""
    last = len(table) - 1
    index = (t * last).long().clamp(0, last - 1)
    return torch.lerp(table[index], table[index + 1], t * last - index)


def _locate(table: Tensor, value: Tensor) -> Tensor:
    """The time at which a rising table has this value."""
    last = len(table) - 1
    index = (torch.searchsorted(table, value.contiguous()) - 1).clamp(0, last - 1)
    return (index + (value - table[index]) / (table[index + 1] - table[index])) / last
