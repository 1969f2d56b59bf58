"""A discrete chain of betas as a continuous schedule: log(alpha^2) is interpolated linearly between its points.

Point i of the table (i = 1 ... T) stands at t = i / T and t = 0 is clean data, so the schedule is exact at the table's
own points, and equals the continuous VP process whose rate is constant between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffsweep.diffusion.level import Level, preserving
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
        table = self.log_alpha2.to(t)
        last = len(table) - 1
        index = (t * last).long().clamp(0, last - 1)
        log_alpha2 = torch.lerp(table[index], table[index + 1], t * last - index)
        return log_alpha2 - (-torch.expm1(log_alpha2)).log()

    def inverse(self, logsnr: Tensor) -> Tensor:
        table = self.log_alpha2.to(logsnr)
        last = len(table) - 1
        log_alpha2 = torch.nn.functional.logsigmoid(logsnr)
        index = (torch.searchsorted(-table, -log_alpha2.contiguous()) - 1).clamp(0, last - 1)
        return (index + (log_alpha2 - table[index]) / (table[index + 1] - table[index])) / last
