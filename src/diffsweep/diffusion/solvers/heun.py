"""Heun: Euler to s, denoise there too, and average the two slopes.

The slopes are eps, in the noise n = sigma / alpha, or v = eps - x0, in n / (1 + n), the time of straight paths. For eps

    x0 = x0_t + (n_t / (2 n_s)) (x0_s - x0_t)

The last step, to clean data where there is no slope, is Euler's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.level import Level
from diffsweep.diffusion.solvers.base import NoPlan, aim_at, needs_signal, slope_at
from diffsweep.diffusion.transfer import transfer
from diffsweep.mistakes import one_of


@dataclass(frozen=True)
class Heun(NoPlan):
    """EDM's deterministic sampler (arXiv 2206.00364, algorithm 1). Two evaluations a step, the last takes one.

    Args:
        quantity: eps, or v, which can start from pure noise.
    """

    quantity: str = "eps"
    order: int = field(default=2, init=False)

    def __post_init__(self) -> None:
        one_of("quantity", self.quantity, ("eps", "v"))

    def nfe(self, steps: int) -> int:
        return 2 * steps - 1

    def aim(self, denoise: Denoise, x: Tensor, t: Level, s: Level, memory: None) -> tuple[Tensor, None]:
        here = denoise(x, t)
        if s.sigma == 0:
            return here, None
        moved = transfer(x, t, s, here)
        there = denoise(moved, s)
        if self.quantity == "v":
            mean = slope_at("v", x, t, here).lerp(slope_at("v", moved, s, there), 0.5)
            return aim_at("v", x, t, mean), None
        needs_signal(t, "Heun's method")
        return here.lerp(there, t.noise / s.noise / 2), None
