"""Midpoint: Euler half-way in the noise variable n = sigma / alpha, and the eps found there for the whole step.

The last step, to clean data, is Euler's.
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
class Midpoint:
    """The explicit midpoint rule (EDM, arXiv 2206.00364, appendix D.2, alpha = 1/2). Two evaluations a step."""

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
        needs_signal(t, "the midpoint method")
        middle = t.at((t.noise + s.noise) / 2)
        between = transfer(x, t, middle, here)
        return x0_at(x, t, eps_at(between, middle, denoise(between, middle))), None
