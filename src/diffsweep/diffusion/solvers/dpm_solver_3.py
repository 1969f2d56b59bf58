"""DPM-Solver-3: a third-order exponential Runge-Kutta step in lambda = logsnr / 2, with stages at 1/3 and 2/3 of it.

    psi(h) = 1 / h - 1 / (e^h - 1)
    stage 2:  eps = eps_t + 2 psi(2 h / 3) (eps_1 - eps_t)
    aim:      eps = eps_t + (3 / 2) psi(h) (eps_2 - eps_t)

The last step, to clean data where h is infinite, is Euler's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.level import Level
from diffsweep.diffusion.solvers.base import NoPlan, eps_at, needs_signal, x0_at
from diffsweep.diffusion.transfer import transfer


@dataclass(frozen=True)
class DPMSolver3(NoPlan):
    """DPM-Solver-3 (arXiv 2206.00927, algorithm 2). Three evaluations a step, the last takes one."""

    order: int = field(default=3, init=False)

    def nfe(self, steps: int) -> int:
        return 3 * steps - 2

    def aim(self, denoise: Denoise, x: Tensor, t: Level, s: Level, memory: None) -> tuple[Tensor, None]:
        here = denoise(x, t)
        if s.sigma == 0:
            return here, None
        needs_signal(t, "DPM-Solver-3")
        h = math.log(t.noise / s.noise)
        eps = eps_at(x, t, here)
        first, second = (t.at(t.noise * math.exp(-share * h)) for share in (1 / 3, 2 / 3))
        between = transfer(x, t, first, here)
        slope = eps_at(between, first, denoise(between, first))
        between = transfer(x, t, second, x0_at(x, t, eps.lerp(slope, 2 * _psi(2 * h / 3))))
        slope = eps_at(between, second, denoise(between, second))
        return x0_at(x, t, eps.lerp(slope, 1.5 * _psi(h))), None


def _psi(h: float) -> float:
    # The difference loses all digits for small steps, where the series has them.
    return 1 / h - 1 / math.expm1(h) if h > 1e-2 else 1 / 2 - h / 12 + h**3 / 720
