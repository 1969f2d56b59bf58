"""The log signal-to-noise ratio itself, perhaps scaled: the convention of Variational Diffusion Models and of ours."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.mistakes import above, number


@dataclass(frozen=True)
class LogSNR:
    """scale * logsnr, with logsnr kept in a range (Variational Diffusion Models, arXiv 2107.00630).

    Args:
        scale: Factor, not 0; -1 tells -logsnr, the paper's gamma.
        limit: Largest absolute log-SNR that is told; pure noise and clean data are infinite.

    Raises:
        ValueError: for a scale that is not finite or limit <= 0.
    """

    scale: float = 1.0
    limit: float = 20.0

    def __post_init__(self) -> None:
        number("scale", self.scale)
        above("limit", self.limit)

    def __call__(self, logsnr: Tensor, schedule: Schedule) -> Tensor:
        return self.scale * logsnr.clamp(-self.limit, self.limit)
