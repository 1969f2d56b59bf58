"""Gradient estimation: ``eps = gamma eps_0 + (1 - gamma) eps_1`` damps the error of each eps by the one before.

Gamma 1 is DDIM, 3/2 Adams-Bashforth's order 2; the paper's 2 is of order 1 with a small constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.level import Level
from diffsweep.diffusion.noise import Leg
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.solvers.multistep import Memory, advance, start
from diffsweep.mistakes import BadValue


@dataclass(frozen=True)
class GradientEstimation:
    """Permenter & Yuan, Interpreting and Improving Diffusion Models (arXiv 2306.04848).

    Args:
        gamma: Weight of the latest eps, >= 1.
    """

    gamma: float = 2.0
    order: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        if not self.gamma >= 1:
            raise BadValue("gamma", self.gamma, "must be 1 (DDIM) or more (2 is the paper's)")

    def nfe(self, steps: int) -> int:
        return steps

    def plan(self, legs: Sequence[Leg], schedule: Schedule) -> Memory:
        return start("eps", [(1.0,), *[(self.gamma, 1 - self.gamma)] * (len(legs) - 1)], legs)

    def aim(self, denoise: Denoise, x: Tensor, t: Level, s: Level, memory: Memory) -> tuple[Tensor, Memory]:
        return advance("eps", denoise(x, t), x, t, memory)
