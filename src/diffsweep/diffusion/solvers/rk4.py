"""The classical Runge-Kutta method in the noise variable n = sigma / alpha, where dy/dn = eps.

The last step, to clean data where eps cannot be asked for, is Euler's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.level import Level
from diffsweep.diffusion.solvers.base import NoPlan, eps_at, needs_signal, x0_at
from diffsweep.diffusion.transfer import transfer


@dataclass(frozen=True)
class RK4(NoPlan):
    """Runge-Kutta of order 4 on EDM's form of the flow (arXiv 2206.00364, eqs. 1 and 3). Four evaluations a step."""

    order: int = field(default=4, init=False)

    def nfe(self, steps: int) -> int:
        return 4 * steps - 3

    def aim(self, denoise: Denoise, x: Tensor, t: Level, s: Level, memory: None) -> tuple[Tensor, None]:
        here = denoise(x, t)
        if s.sigma == 0:
            return here, None
        needs_signal(t, "RK4")
        middle = t.at((t.noise + s.noise) / 2)

        def slope(stage: Level, x0: Tensor) -> Tensor:
            moved = transfer(x, t, stage, x0)
            return eps_at(moved, stage, denoise(moved, stage))

        first = eps_at(x, t, here)
        second = slope(middle, here)
        third = slope(middle, x0_at(x, t, second))
        fourth = slope(s, x0_at(x, t, third))
        return x0_at(x, t, (first + fourth).add_(second + third, alpha=2).div_(6)), None
