"""Adams-Bashforth: aim at the mean, over the step, of the polynomial through the last values of x0, eps or v.

One evaluation a step; the first steps, for want of a past, are of lower order, and so is a step whose end the variable
cannot reach (log-SNR at clean data).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from diffsweep.diffusion.level import Level
from diffsweep.diffusion.noise import Leg
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.solvers.quadrature import QUANTITIES, VARIABLES, weights

Memory = tuple[int, list[list[float]], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Multistep:
    """LMS, DEIS (arXiv 2204.13902, eq. 15), DPM-Solver++(3M) (arXiv 2211.01095) and Adams-Bashforth in v, by choice.

    Args:
        quantity: What is extrapolated: x0, eps or v.
        variable: In what it is drawn as a polynomial: logsnr, noise (sigma / alpha), share (sigma / (alpha + sigma))
            or time.
        order: Number of values, >= 1.
    """

    quantity: str = "x0"
    variable: str = "logsnr"
    order: int = 3

    def __post_init__(self) -> None:
        for key, value, known in (
            ("quantity", self.quantity, QUANTITIES),
            ("variable", self.variable, VARIABLES),
        ):
            if value not in known:
                raise ValueError(f"sampler.solver.{key}={value} is unknown: choose one of {', '.join(known)}")
        if isinstance(self.order, bool) or not isinstance(self.order, int) or not 1 <= self.order <= 6:
            raise ValueError(f"sampler.solver.order={self.order} must be a whole number from 1 to 6")

    def steps(self, nfe: int) -> int:
        return nfe

    def nfe(self, steps: int) -> int:
        return steps

    def plan(self, legs: Sequence[Leg], schedule: Schedule) -> Memory:
        return 0, [self._row(legs, i, row) for i, row in enumerate(self._weights(legs, schedule))], ()

    def _row(self, legs: Sequence[Leg], i: int, row: list[float]) -> list[float]:
        """For x0 the weights themselves; for sigma eps and sigma v what solves for the aim, x's own share first."""
        if self.quantity == "x0" or len(row) == 1:
            return row
        t = legs[i].t
        scale = self._scale(t)
        return [1 / scale, *(-w * t.sigma / legs[i - j].t.sigma / scale for j, w in enumerate(row))]

    def _scale(self, t: Level) -> float:
        return t.alpha + t.sigma if self.quantity == "v" else t.alpha

    def _weights(self, legs: Sequence[Leg], schedule: Schedule) -> list[list[float]]:
        groups: dict[int, list[int]] = {}
        known = 0
        for i, leg in enumerate(legs):
            known = known + 1 if leg.t.alpha else 0
            if self.quantity == "x0" or self.variable == "logsnr":
                reachable = leg.s.sigma > 0 and leg.u.sigma > 0
            else:
                reachable = True
            groups.setdefault(min(self.order, known) if reachable else 1, []).append(i)
        rows: list[list[float]] = [[1.0]] * len(legs)
        for count, chosen in groups.items():
            if count > 1:
                nodes = [[legs[i - j].t for j in range(count)] for i in chosen]
                found = weights(self.quantity, self.variable, nodes, [legs[i] for i in chosen], schedule)
                for i, row in zip(chosen, found, strict=True):
                    rows[i] = row
        return rows

    def aim(
        self, denoise: Callable[[Tensor, Level], Tensor], x: Tensor, t: Level, s: Level, memory: Memory
    ) -> tuple[Tensor, Memory]:
        index, rows, past = memory
        here = denoise(x, t)
        value = here if self.quantity == "x0" else x.add(here, alpha=-self._scale(t))
        past = (value, *past[: self.order - 1])
        row = rows[index]
        values = past if self.quantity == "x0" else (x, *past)
        aim = here if len(row) == 1 else combined(values, row)
        return aim, (index + 1, rows, past)


def combined(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The sum of the values, the latest first, each times its weight; older ones without a weight are left out."""
    total = values[0] * weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=False):
        total.add_(value, alpha=weight)
    return total
