"""DPM-Solver++ (SDE): legs in pairs, the first to a level within the step, the second for the whole step anew.

A step from t to s by way of m moves, with fresh noise, by ``x_s = A x_t + B x0 + noise``. With D = x0 at t and at m,

    x_m = A_1 x_t + B_1 D_t + noise,    x_s = A_2 A_1 x_t + (A_2 B_1 + B_2) x0 + noise,
    x0 = D_t + (D_m - D_t) / (2 r),     r = (lambda_m - lambda_t) / (lambda_s - lambda_t)

Starting the second leg from x_m instead, its noise being the first's continuation, the same x_s is reached by aiming at

    x0 + (A_2 B_1 / B_2) (x0 - D_t)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.level import Level
from diffsweep.diffusion.noise import Leg
from diffsweep.diffusion.schedules.base import Schedule

Progress = tuple[int, list[float], Tensor | None]


@dataclass(frozen=True)
class DPMppSDE:
    """DPM-Solver++ as an SDE solver with two evaluations a step (k-diffusion's ``sample_dpmpp_sde``, arXiv 2211.01095).

    Two legs are one step, so that it costs one evaluation a leg; with an odd number the last leg is Euler's, as is the
    last one anyhow, to clean data.
    """

    order: int = field(default=1, init=False)

    def nfe(self, steps: int) -> int:
        return steps

    def plan(self, legs: Sequence[Leg], schedule: Schedule) -> Progress:
        gains = [1.0] * len(legs)
        for i in range(1, len(legs), 2):
            first, second = legs[i - 1], legs[i]
            if second.s.sigma == 0 or first.t.alpha == 0:
                continue
            r = (second.t.logsnr - first.t.logsnr) / (second.s.logsnr - first.t.logsnr)
            # Where the forward process would climb from u to the next leg's start, A shrinks by alpha's ratio only.
            a2, b2 = _move(second)
            _, b1 = _move(first)
            climb = second.t.alpha / first.u.alpha
            share = a2 * b1 * climb / b2
            gains[i] = (1 + share) / (2 * r)
        return 0, gains, None

    def aim(self, denoise: Denoise, x: Tensor, t: Level, s: Level, memory: Progress) -> tuple[Tensor, Progress]:
        index, gains, before = memory
        here = denoise(x, t)
        if index % 2 == 0 or before is None:
            return here, (index + 1, gains, here)
        return before.lerp(here, gains[index]), (index + 1, gains, None)


def _move(leg: Leg) -> tuple[float, float]:
    """(A, B) of ``transfer`` from t to u."""
    ratio = leg.u.sigma / leg.t.sigma
    return ratio, leg.u.alpha - leg.t.alpha * ratio
