"""PNDM's linear multistep form, PLMS: iPNDM with a first step by the trapezoid of two evaluations.

Its coefficients are those of equal steps, so that the measured order is 2 (see ``ipndm``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from diffsweep.diffusion.level import Level
from diffsweep.diffusion.noise import Leg
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.solvers.base import eps_at, needs_signal, x0_at
from diffsweep.diffusion.solvers.ipndm import extrapolated
from diffsweep.diffusion.transfer import transfer


@dataclass(frozen=True)
class PNDM:
    """Pseudo Numerical Methods (arXiv 2202.09778, eq. 12), as latent diffusion runs it; two evaluations at first."""

    order: int = field(default=2, init=False)

    def steps(self, nfe: int) -> int:
        return max(1, nfe - 1)

    def nfe(self, steps: int) -> int:
        return steps + 1 if steps > 1 else 1

    def plan(self, legs: Sequence[Leg], schedule: Schedule) -> tuple[Tensor, ...]:
        return ()

    def aim(
        self, denoise: Callable[[Tensor, Level], Tensor], x: Tensor, t: Level, s: Level, memory: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        here = denoise(x, t)
        if not memory and s.sigma == 0:
            return here, ()
        needs_signal(t, "PNDM")
        eps = eps_at(x, t, here)
        past = (eps, *memory[:3])
        if memory:
            return x0_at(x, t, extrapolated(past)), past
        there = transfer(x, t, s, here)
        return x0_at(x, t, eps.lerp(eps_at(there, s, denoise(there, s)), 0.5)), past
