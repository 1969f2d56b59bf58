"""DPM-Solver-2: Euler half-way in lambda = logsnr / 2, and the eps found there for the whole step.

The last step, to clean data where lambda is infinite, is Euler's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from diffsweep.diffusion.level import Level
from diffsweep.diffusion.noise import Leg
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.solvers.base import eps_at, needs_signal, x0_at
from diffsweep.diffusion.transfer import transfer


@dataclass(frozen=True)
class DPMSolver2:
    """DPM-Solver-2 (arXiv 2206.00927, algorithm 1). Two evaluations a step, the last takes one."""

    order: int = field(default=2, init=False)

    def nfe(self, steps: int) -> int:
        return 2 * steps - 1

    def plan(self, legs: Sequence[Leg], schedule: Schedule) -> None:
        return None

    def aim(
        self, denoise: Callable[[Tensor, Level], Tensor], x: Tensor, t: Level, s: Level, memory: None
    ) -> tuple[Tensor, None]:
        here = denoise(x, t)
        if s.sigma == 0:
            return here, None
        needs_signal(t, "DPM-Solver-2")
        middle = t.at((t.noise * s.noise) ** 0.5)
        between = transfer(x, t, middle, here)
        return x0_at(x, t, eps_at(between, middle, denoise(between, middle))), None
