"""The time in [0, 1] of the straight path, perhaps scaled: the convention of flow matching."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.mistakes import flag, number


@dataclass(frozen=True)
class Time:
    """scale * t with t = sigma / (alpha + sigma): 0 is data, 1 is noise (Flow Matching, arXiv 2210.02747).

    Args:
        scale: Factor: 1000 for networks of diffusers.
        data_last: Whether the network's time runs the other way, from noise at 0 to data at 1, as SiT's.

    Raises:
        ValueError: for a scale that is not finite.
    """

    scale: float = 1.0
    data_last: bool = False

    def __post_init__(self) -> None:
        number("scale", self.scale)
        flag("data_last", self.data_last)

    def __call__(self, logsnr: Tensor, schedule: Schedule) -> Tensor:
        return self.scale * torch.sigmoid(logsnr / 2 if self.data_last else -logsnr / 2)
