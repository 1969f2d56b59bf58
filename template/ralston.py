"""A solver of the project's own: Ralston's method, of second order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from diffsweep.diffusion import Level, transfer


@dataclass(frozen=True)
class Ralston:
    """Two thirds of the step, and three quarters of the slope found there.

    Attributes:
        part: how far into the step the second call lies.
        order: of the error; the number of steps decides the error as its power.
    """

    part: float = 2 / 3
    order: ClassVar[int] = 2

    def nfe(self, steps: int) -> int:
        """Network calls that `steps` steps take: the last one, to the clean image, takes one."""
        return 2 * steps - 1

    def plan(self, legs: Sequence[Any], schedule: Any) -> None:
        """Nothing to compute beforehand."""

    def aim(self, denoise: Any, x: Tensor, t: Level, s: Level, memory: Any) -> tuple[Tensor, None]:
        """The x0 that a straight step from level `t` to level `s` aims at, and what to remember: nothing."""
        here = denoise(x, t)
        if s.sigma == 0:
            return here, None
        middle = t.at(t.noise + self.part * (s.noise - t.noise))
        y = transfer(x, t, middle, here)
        first, second = (x - t.alpha * here) / t.sigma, (y - middle.alpha * denoise(y, middle)) / middle.sigma
        return (x - t.sigma * first.lerp(second, 0.5 / self.part)) / t.alpha, None
