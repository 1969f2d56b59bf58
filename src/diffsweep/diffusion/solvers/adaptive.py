"""Adaptive steps: DPM-Solver-2 and -3 share their evaluations, and what they differ by is the error of a step.

In lambda = -log n, with psi(h) = 1 / h - 1 / (e^h - 1) and stages at 1/3 and 2/3 of the step h:

    order 2:  eps = eps_t + (3 / 2) (eps_1 - eps_t)
    stage 2:  eps = eps_t + 2 psi(2 h / 3) (eps_1 - eps_t)
    order 3:  eps = eps_t + (3 / 2) psi(h) (eps_2 - eps_t)

A step is accepted if the root mean square of the difference over a sample, in units of
``max(absolute, relative |y|)`` with y = x / alpha, is at most 1; the next is longer or shorter by 0.9 error^(-1/3).
Every sample has its own steps, so that none depends on its neighbours; those that are done wait for the others. One
that needs more evaluations than are allowed takes the rest of its way in one Euler step, with a warning.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.level import Level
from diffsweep.diffusion.solvers.base import NoPlan, needs_signal
from diffsweep.mistakes import above


@dataclass(frozen=True)
class Adaptive(NoPlan):
    """DPM-Solver-23 with adaptive steps (DPM-Solver, arXiv 2206.00927).

    The spacing's first and last noisy levels are its ends; ``sampler.nfe`` is not what it costs but what it may cost.

    Args:
        relative: Allowed error of a step in proportion to the state, > 0.
        absolute: Allowed error of a step in units of the data, > 0.
        limit: Network evaluations allowed, the same as the sampler's ``nfe``; below 8 it is one step of Euler's.
    """

    relative: float = 0.001
    absolute: float = 0.001
    limit: int = 200
    order: int = field(default=3, init=False)

    def __post_init__(self) -> None:
        for key, value in (("relative", self.relative), ("absolute", self.absolute)):
            above(key, value)

    def nfe(self, steps: int) -> int:
        # It chooses its own steps between the two ends, so that more than one leg to the last noisy level is no use.
        return {1: 1, 2: self.limit if self.limit >= 8 else sys.maxsize}.get(steps, sys.maxsize)

    def aim(self, denoise: Denoise, x: Tensor, t: Level, s: Level, memory: None) -> tuple[Tensor, None]:
        if s.sigma == 0:
            return denoise(x, t), None
        needs_signal(t, "the adaptive method")
        reached = self._integrated(denoise, x, t, s)
        ratio = s.sigma / t.sigma
        # The aim whose straight line ends where the integration did.
        return (reached - x * ratio).div_(s.alpha - t.alpha * ratio), None

    def _integrated(self, denoise: Denoise, x: Tensor, t: Level, s: Level) -> Tensor:
        rows = (len(x), *[1] * (x.ndim - 1))
        # Noise spans five decades, which half-precision states could not hold.
        y = (x / t.alpha).to(torch.promote_types(x.dtype, torch.float32))
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        now, step = (torch.full(rows, value, device=x.device, dtype=wide) for value in (t.logsnr / 2, 0.1))
        end = torch.full_like(now, s.logsnr / 2)

        def eps(at: Tensor, where: Tensor) -> Tensor:
            noise = (-where).exp()
            level = Level(torch.full_like(noise.flatten(), t.alpha), t.alpha * noise.flatten())
            x0 = denoise((at * t.alpha).to(x.dtype), level)
            return ((at - x0) / noise).to(y.dtype)

        spent = 0
        while bool((now < end).any()):
            if spent + 4 >= self.limit:
                # One hard sample must not end the others: what has not arrived takes what is left in one Euler step.
                late = now < end
                warnings.warn(
                    f"{int(late.sum())} of {len(x)} samples need more than nfe={self.limit} network evaluations for "
                    f"relative={self.relative} and absolute={self.absolute}: their last step is Euler's",
                    stacklevel=2,
                )
                y = torch.where(late, y + ((-end).exp() - (-now).exp()).to(y.dtype) * eps(y, now), y)
                break
            # The sum of rounded steps must not end a hair before the end.
            last = step >= (end - now) * (1 - 1e-9)
            h = torch.where(last, end - now, step).clamp(min=1e-12)
            noise, first, second, third = ((-now - share * h).exp() for share in (0, 1 / 3, 2 / 3, 1))
            here = eps(y, now)
            change = eps(y + ((first - noise) * here).to(y.dtype), now + h / 3) - here
            guess = here + (2 * _psi(2 * h / 3)).to(y.dtype) * change
            later = eps(y + ((second - noise) * guess).to(y.dtype), now + 2 * h / 3) - here
            spent += 3
            coarse = y + ((third - noise) * (here + 1.5 * change)).to(y.dtype)
            moved = y + ((third - noise) * (here + (1.5 * _psi(h)).to(y.dtype) * later)).to(y.dtype)
            allowed = (self.relative * torch.maximum(y.abs(), moved.abs())).clamp(min=self.absolute)
            size = ((moved - coarse) / allowed).flatten(1).square().mean(1).sqrt().view(rows).to(wide)
            # Rows that have arrived stay.
            accepted = (size <= 1) & (now < end)
            y = torch.where(accepted, moved, y)
            now = torch.where(accepted, torch.where(last, end, now + h), now)
            step = h * (0.9 * size.clamp(min=1e-9) ** (-1 / 3)).clamp(0.2, 5.0)
        return (y * s.alpha).to(x.dtype)


def _psi(h: Tensor) -> Tensor:
    # The difference loses all digits for small steps, where the series has them.
    return torch.where(h > 1e-2, 1 / h - 1 / torch.expm1(h), 1 / 2 - h / 12 + h**3 / 720)
