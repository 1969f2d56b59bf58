"""DPM-Solver++(2M): extrapolate the denoised x linearly in lambda = logsnr / 2 to the middle of the step.

    x0 = x0_t + (h / (2 h_before)) (x0_t - x0_before),   h = lambda_s - lambda_t

The first step (no memory) and the last one (to clean data, h infinite) are Euler's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.level import Level
from diffsweep.diffusion.solvers.base import NoPlan


@dataclass(frozen=True)
class DPMpp2M(NoPlan):
    """DPM-Solver++ (arXiv 2211.01095, algorithm 2). One evaluation a step, order 2."""

    order: int = field(default=2, init=False)

    def nfe(self, steps: int) -> int:
        return steps

    def aim(
        self,
        denoise: Denoise,
        x: Tensor,
        t: Level,
        s: Level,
        memory: tuple[Tensor, float] | None,
    ) -> tuple[Tensor, tuple[Tensor, float]]:
        here = denoise(x, t)
        now = t.logsnr
        if memory is None or math.isinf(s.logsnr):
            return here, (here, now)
        before, then = memory
        # An infinitely distant past, pure noise, tells nothing about the slope.
        weight = (s.logsnr - now) / (2 * (now - then))
        return before.lerp(here, 1 + weight), (here, now)
