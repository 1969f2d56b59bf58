"""Euler: aim at the denoised x. One evaluation a step, order 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from diffsweep.diffusion.level import Level
from diffsweep.diffusion.noise import Leg
from diffsweep.diffusion.schedules.base import Schedule


@dataclass(frozen=True)
class Euler:
    """DDIM (arXiv 2010.02502) = Euler of EDM (arXiv 2206.00364) = rectified-flow Euler = DPM-Solver++(1).

    With the reverse SDE's noise (eta 1) it is ancestral sampling, DDPM (arXiv 2006.11239, algorithm 2).
    """

    order: int = field(default=1, init=False)

    def nfe(self, steps: int) -> int:
        return steps

    def plan(self, legs: Sequence[Leg], schedule: Schedule) -> None:
        return None

    def aim(
        self, denoise: Callable[[Tensor, Level], Tensor], x: Tensor, t: Level, s: Level, memory: None
    ) -> tuple[Tensor, None]:
        return denoise(x, t), None
