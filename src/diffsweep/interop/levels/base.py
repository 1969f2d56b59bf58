"""What every convention for a network's noise input has in common."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from diffsweep.diffusion.schedules.base import Schedule


class LevelInput(Protocol):
    """From a log-SNR to the number that a network takes beside its picture."""

    def __call__(self, logsnr: Tensor, schedule: Schedule) -> Tensor:
        """The numbers for log-SNRs (N,), on the schedule that the network was trained on."""
        ...
