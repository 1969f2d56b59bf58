"""DPM-Solver++(2S): denoise half-way in lambda = logsnr / 2 between the two ends of the step, and aim at that.

The last step, to clean data where lambda is infinite, is Euler's.
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
class DPMpp2S:
    """DPM-Solver++(2S) (arXiv 2211.01095, algorithm 1, r = 1/2). Two evaluations a step, the last takes one."""

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
        needs_signal(t, "DPM-Solver++(2S)")
        middle = t.at((t.noise * s.noise) ** 0.5)
        return denoise(transfer(x, t, middle, here), middle), None
