"""The index of a step of the training chain, 0 to count - 1: DDPM's convention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.mistakes import flag, whole

# A level of the chain itself, computed in floats, is this close to its index at most.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Timestep:
    """Step i of the chain stands at time (i + 1) / count of the schedule (DDPM, arXiv 2006.11239).

    Args:
        count: Number of steps of the chain.
        whole: Whether levels between two steps are told as the nearest step, as an integer, for a table of embeddings.

    Raises:
        ValueError: for count < 1.
    """

    count: int = 1000
    whole: bool = False

    def __post_init__(self) -> None:
        whole("count", self.count, 1)
        flag("whole", self.whole)

    def __call__(self, logsnr: Tensor, schedule: Schedule) -> Tensor:
        index = torch.as_tensor(schedule.time(logsnr)) * self.count - 1
        nearest = index.round()
        exact = torch.ones_like(index, dtype=torch.bool) if self.whole else (index - nearest).abs() < _ROUNDING
        known = torch.where(exact, nearest, index).clamp(0, self.count - 1)
        return known.long() if self.whole else known
