"""iPNDM: Adams-Bashforth's coefficients for equal steps on the last values of eps, whatever the steps are.

    eps = (55 eps_0 - 59 eps_1 + 37 eps_2 - 9 eps_3) / 24,   with 2 and 3 values at the start

On steps that are not equal in the noise n = sigma / alpha the coefficients are off by terms of second order, so that
the measured order is 2 for any number of values; with few steps it is among the best all the same.
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
from diffsweep.mistakes import whole

ADAMS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@dataclass(frozen=True)
class IPNDM:
    """Improved PNDM (DEIS, arXiv 2204.13902; from PNDM, arXiv 2202.09778). One evaluation a step.

    Args:
        values: Number of values of eps, 2 to 4.
    """

    values: int = 4
    order: int = field(default=2, init=False)

    def __post_init__(self) -> None:
        whole("values", self.values, 2, 4)

    def nfe(self, steps: int) -> int:
        return steps

    def plan(self, legs: Sequence[Leg], schedule: Schedule) -> Memory:
        return start("eps", [ADAMS[min(i, self.values - 1)] for i in range(len(legs))], legs)

    def aim(self, denoise: Denoise, x: Tensor, t: Level, s: Level, memory: Memory) -> tuple[Tensor, Memory]:
        return advance("eps", denoise(x, t), x, t, memory)
