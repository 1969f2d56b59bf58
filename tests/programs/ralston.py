"""A user's own solver, Ralston's method: an object with `order`, `nfe`, `plan` and `aim`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from diffsweep.diffusion import transfer


@dataclass(frozen=True)
class Ralston:
    """Two thirds of the step, and three quarters of the slope found there."""

    part: float = 2 / 3
    order: ClassVar = 2

    def nfe(self, steps: int) -> int:
        return 2 * steps - 1

    def plan(self, legs: Any, schedule: Any) -> None:
        return None

    def aim(self, denoise: Any, x: Tensor, t: Any, s: Any, memory: Any) -> tuple[Tensor, None]:
        here = denoise(x, t)
        if s.sigma == 0:
            return here, None
        middle = t.at(t.noise + self.part * (s.noise - t.noise))
        y = transfer(x, t, middle, here)
        first, second = (x - t.alpha * here) / t.sigma, (y - middle.alpha * denoise(y, middle)) / middle.sigma
        return (x - t.sigma * first.lerp(second, 0.5 / self.part)) / t.alpha, None
