"""Euler: aim at the denoised x. One evaluation a step, order 1."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.level import Level
from diffsweep.diffusion.solvers.base import NoPlan


@dataclass(frozen=True)
class Euler(NoPlan):
    """DDIM (arXiv 2010.02502) = Euler of EDM (arXiv 2206.00364) = rectified-flow Euler = DPM-Solver++(1).

    With the reverse SDE's noise (eta 1) it is ancestral sampling, DDPM (arXiv 2006.11239, algorithm 2).
    """

    order: int = field(default=1, init=False)

    def nfe(self, steps: int) -> int:
        return steps

    def aim(self, denoise: Denoise, x: Tensor, t: Level, s: Level, memory: None) -> tuple[Tensor, None]:
        return denoise(x, t), None
