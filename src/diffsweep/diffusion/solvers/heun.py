"""Heun: Euler to s, denoise there too, and average the two slopes in the noise variable n = sigma / alpha.

Averaging dy/dn = (y - x0) / n of both ends and solving for the aim gives

    x0 = x0_t + (n_t / (2 n_s)) (x0_s - x0_t)

The last step, to clean data where n_s = 0, is Euler's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from diffsweep.diffusion.level import Level
from diffsweep.diffusion.noise import Leg
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.solvers.base import needs_signal
from diffsweep.diffusion.transfer import transfer


@dataclass(frozen=True)
class Heun:
    """EDM's deterministic sampler (arXiv 2206.00364, algorithm 1). Two evaluations a step, the last takes one."""

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
        needs_signal(t, "Heun's method")
        there = denoise(transfer(x, t, s, here), s)
        return here.lerp(there, t.noise / s.noise / 2), None
