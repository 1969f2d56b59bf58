"""Adaptive steps: an embedded pair of orders 3 and 2 estimates each step's error, in log noise, sample by sample.

In lambda = -log n the flow of y = x / alpha is ``dy/dlambda = x0(y) - y``. The pair of Bogacki and Shampine takes three
new evaluations a step; a step is accepted if the root mean square of the error over each sample, in units of
``absolute + relative |y|``, is at most 1, and the next is longer or shorter by 0.9 error^(-1/3).

Every sample has its own steps, so that none depends on its neighbours; those that are done wait for the others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffsweep.diffusion.level import Level
from diffsweep.diffusion.noise import Leg
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.solvers.base import needs_signal


@dataclass(frozen=True)
class Adaptive:
    """Error-controlled integration (P. Bogacki, L. Shampine, "A 3(2) pair of Runge-Kutta formulas", 1989).

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
            if not value > 0:
                raise ValueError(f"sampler.solver.{key}={value} must be above 0")

    def nfe(self, steps: int) -> int:
        # It chooses its own steps between the two ends, so that more than one leg to the last noisy level is no use.
        return {1: 1, 2: self.limit if self.limit >= 8 else sys.maxsize}.get(steps, sys.maxsize)

    def plan(self, legs: Sequence[Leg], schedule: Schedule) -> None:
        return None

    def aim(
        self, denoise: Callable[[Tensor, Level], Tensor], x: Tensor, t: Level, s: Level, memory: None
    ) -> tuple[Tensor, None]:
        if s.sigma == 0:
            return denoise(x, t), None
        needs_signal(t, "the adaptive method")
        reached = self._integrated(denoise, x, t, s)
        ratio = s.sigma / t.sigma
        # The aim whose straight line ends where the integration did.
        return (reached - x * ratio).div_(s.alpha - t.alpha * ratio), None

    def _integrated(self, denoise: Callable[[Tensor, Level], Tensor], x: Tensor, t: Level, s: Level) -> Tensor:
        rows = (len(x), *[1] * (x.ndim - 1))
        # Noise spans five decades, which half-precision states could not hold; the levels are few numbers.
        y = (x / t.alpha).to(torch.promote_types(x.dtype, torch.float32))
        wide = {"device": x.device, "dtype": torch.float32 if x.device.type == "mps" else torch.float64}
        now = torch.full(rows, -t.logsnr / 2, **wide)
        end = -s.logsnr / 2
        step = torch.full(rows, -0.1, **wide)

        def slope(at: Tensor, log_noise: Tensor) -> Tensor:
            noise = log_noise.exp()
            level = Level(torch.full_like(noise.flatten(), t.alpha), t.alpha * noise.flatten())
            x0 = denoise((at * t.alpha).to(x.dtype), level).to(at.dtype)
            return (at - x0).to(at.dtype)

        first = slope(y, now)
        spent = 1
        while bool((now > end).any()):
            if spent + 3 >= self.limit:
                raise ValueError(
                    f"sampler.nfe={self.limit} is too few for sampler.solver.relative={self.relative} and "
                    f"absolute={self.absolute}: allow more, or a larger error"
                )
            step = torch.maximum(step, end - now)
            h = step.to(y.dtype)
            second = slope(y + h / 2 * first, now + step / 2)
            third = slope(y + 0.75 * h * second, now + 0.75 * step)
            moved = y + h * (2 / 9 * first + 1 / 3 * second + 4 / 9 * third)
            fourth = slope(moved, now + step)
            spent += 3
            error = h * (-5 / 72 * first + 1 / 12 * second + 1 / 9 * third - 1 / 8 * fourth)
            allowed = self.absolute + self.relative * torch.maximum(y.abs(), moved.abs())
            size = (error / allowed).flatten(1).square().mean(1).sqrt().view(rows).to(now.dtype)
            accepted = size <= 1
            y, first = torch.where(accepted, moved, y), torch.where(accepted, fourth, first)
            arrived = now + step
            # The last step ends at the end itself, not a rounding error before it.
            arrived = torch.where(arrived - end < 1e-12, end, arrived)
            now = torch.where(accepted, arrived, now)
            step = step * (0.9 * size.clamp(min=1e-9) ** (-1 / 3)).clamp(0.2, 5.0)
        return (y * s.alpha).to(x.dtype)
