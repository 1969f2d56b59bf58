"""Midpoint: Euler half-way, and what is denoised there tells the aim of the whole step.

Half-way is meant in the noise n = sigma / alpha, in log-SNR, or in n / (1 + n), the time of straight paths; what is
taken from there is eps, x0 or the velocity v = eps - x0. The last step, to clean data, is Euler's.
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
class Midpoint(NoPlan):
    """The explicit midpoint rule (EDM, arXiv 2206.00364, appendix D.2, alpha = 1/2). Two evaluations a step.

    With eps in log-SNR it is DPM-Solver-2 (arXiv 2206.00927, algorithm 1), with x0 in log-SNR DPM-Solver++(2S) (arXiv
    2211.01095, algorithm 1), with v in the share of noise the midpoint rule of flow matching (arXiv 2210.02747).

    Args:
        quantity: What is taken from half-way: eps, x0 or v.
        variable: Where half-way is: noise (sigma / alpha), logsnr or share (sigma / (alpha + sigma)).
    """

    quantity: str = "eps"
    variable: str = "noise"
    order: int = field(default=2, init=False)

    def __post_init__(self) -> None:
        one_of("quantity", self.quantity, ("eps", "x0", "v"))
        one_of("variable", self.variable, ("noise", "logsnr", "share"))

    def nfe(self, steps: int) -> int:
        return 2 * steps - 1

    def aim(self, denoise: Denoise, x: Tensor, t: Level, s: Level, memory: None) -> tuple[Tensor, None]:
        here = denoise(x, t)
        if s.sigma == 0:
            return here, None
        middle = self._middle(t, s)
        between = transfer(x, t, middle, here)
        value = slope_at(self.quantity, between, middle, denoise(between, middle))
        return aim_at(self.quantity, x, t, value), None

    def _middle(self, t: Level, s: Level) -> Level:
        if self.variable == "share":
            share = sum(level.sigma / (level.alpha + level.sigma) for level in (t, s)) / 2
            return s.at(share / (1 - share))
        needs_signal(t, "this midpoint rule")
        return t.at((t.noise + s.noise) / 2 if self.variable == "noise" else (t.noise * s.noise) ** 0.5)
