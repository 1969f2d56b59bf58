"""Heun: Euler to s, denoise there too, and average the two slopes in the noise variable n = sigma / alpha.

Averaging dy/dn = (y - x0) / n of both ends and solving for the aim gives

    x0 = x0_t + (n_t / (2 n_s)) (x0_s - x0_t)

The last step, to clean data where n_s = 0, is Euler's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from diffsweep.diffusion.level import Level
from diffsweep.diffusion.transfer import transfer


@dataclass(frozen=True)
class Heun:
    """EDM's deterministic sampler (arXiv 2206.00364, algorithm 1). Two evaluations a step, the last takes one."""

    order: int = field(default=2, init=False)

    def steps(self, nfe: int) -> int:
        return (nfe + 1) // 2

    def nfe(self, steps: int) -> int:
        return 2 * steps - 1

    def aim(
        self, denoise: Callable[[Tensor, Level], Tensor], x: Tensor, t: Level, s: Level, memory: None
    ) -> tuple[Tensor, None]:
        here = denoise(x, t)
        if s.sigma == 0:
            return here, None
        if t.alpha == 0:
            raise ValueError(
                "Heun's method cannot start from pure noise (alpha = 0), as this schedule does with this spacing: "
                "choose sampler/spacing=karras or logsnr, sampler=ddim or dpmpp_2m, or schedule=cosine, linear or ve"
            )
        there = denoise(transfer(x, t, s, here), s)
        return here + (there - here) * (t.noise / s.noise / 2), None
