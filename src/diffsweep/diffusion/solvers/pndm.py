"""PNDM's linear multistep form, PLMS: iPNDM with a first step by the trapezoid of two evaluations.

Its coefficients are those of equal steps, so that the measured order is 2 (see ``ipndm``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.level import Level
from diffsweep.diffusion.noise import Leg
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.solvers.base import eps_at, needs_signal, x0_at
from diffsweep.diffusion.solvers.ipndm import ADAMS
from diffsweep.diffusion.solvers.multistep import Memory, advance, start
from diffsweep.diffusion.transfer import transfer


@dataclass(frozen=True)
class PNDM:
    """Pseudo Numerical Methods (arXiv 2202.09778), as latent diffusion runs it; two evaluations at first."""

    order: int = field(default=2, init=False)

    def nfe(self, steps: int) -> int:
        return steps + 1 if steps > 1 else 1

    def plan(self, legs: Sequence[Leg], schedule: Schedule) -> Memory:
        return start("eps", [ADAMS[min(i, 3)] for i in range(len(legs))], legs)

    def aim(self, denoise: Denoise, x: Tensor, t: Level, s: Level, memory: Memory) -> tuple[Tensor, Memory]:
        here = denoise(x, t)
        aim, following = advance("eps", here, x, t, memory)
        if memory.leg or s.sigma == 0:
            return aim, following
        needs_signal(t, "PNDM")
        there = transfer(x, t, s, here)
        mean = eps_at(x, t, here).lerp(eps_at(there, s, denoise(there, s)), 0.5)
        return x0_at(x, t, mean), following
