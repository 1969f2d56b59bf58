"""Adams-Bashforth: aim at the mean, over the step, of the polynomial through the last values of x0, eps or v.

One evaluation a step; the first steps, for want of a past, are of lower order, and so is a step whose end the variable
cannot reach (log-SNR at clean data).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.level import Level, scaled
from diffsweep.diffusion.noise import Leg
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.solvers.base import scale_of
from diffsweep.diffusion.solvers.quadrature import QUANTITIES, VARIABLES, weights
from diffsweep.mistakes import one_of, whole


class Memory(NamedTuple):
    """Number of the leg, rows of weights, how many values the longest one wants, and the last values, latest first."""

    leg: int
    rows: list[list[float]]
    keep: int
    past: tuple[Tensor, ...]


@dataclass(frozen=True)
class Multistep:
    """LMS, DEIS (arXiv 2204.13902), DPM-Solver++(3M) (arXiv 2211.01095) and Adams-Bashforth in v, by choice.

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
        one_of("quantity", self.quantity, QUANTITIES)
        one_of("variable", self.variable, VARIABLES)
        whole("order", self.order, 1, 6)

    def nfe(self, steps: int) -> int:
        return steps

    def plan(self, legs: Sequence[Leg], schedule: Schedule) -> Memory:
        return start(self.quantity, self._weights(legs, schedule), legs)

    def _weights(self, legs: Sequence[Leg], schedule: Schedule) -> list[list[float]]:
        groups: dict[int, list[int]] = {}
        known = 0
        for i, leg in enumerate(legs):
            # Pure noise is infinitely far away in every variable but the share of noise.
            known = known + 1 if leg.t.alpha or (self.quantity, self.variable) == ("v", "share") else 0
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

    def aim(self, denoise: Denoise, x: Tensor, t: Level, s: Level, memory: Memory) -> tuple[Tensor, Memory]:
        return advance(self.quantity, denoise(x, t), x, t, memory)


def start(quantity: str, rows: Sequence[Sequence[float]], legs: Sequence[Leg]) -> Memory:
    """The memory before the first leg, for rows of weights on the last values of a quantity, the latest first.

    Values of eps and v are kept as sigma eps = x - alpha x0 and sigma v = x - (alpha + sigma) x0, one operation each;
    the rows are turned into what solves for the aim: x's share, then those of the values.
    """
    keep = max(map(len, rows))
    if quantity == "x0":
        return Memory(0, [list(row) for row in rows], keep, ())
    solved = []
    for i, row in enumerate(rows):
        t = legs[i].t
        scale = scale_of(quantity, t)
        shares = (-w * t.sigma / legs[i - j].t.sigma / scale for j, w in enumerate(row))
        solved.append([1.0] if len(row) == 1 else [1 / scale, *shares])
    return Memory(0, solved, keep, ())


def advance(quantity: str, here: Tensor, x: Tensor, t: Level, memory: Memory) -> tuple[Tensor, Memory]:
    """The aim of a leg, with ``here`` the denoised x, and the memory for the next one."""
    index, rows, keep, past = memory
    row = rows[index]
    if quantity == "x0":
        values = past = (here, *past[: keep - 1])
    else:
        past = (x.add(here, alpha=-scale_of(quantity, t)), *past[: keep - 1])
        values = (x, *past)
    return here if len(row) == 1 else _sum(values, row), Memory(index + 1, rows, keep, past)


def _sum(values: Sequence[Tensor], row: Sequence[float]) -> Tensor:
    total = scaled(values[0], row[0])
    for i in range(1, min(len(row), len(values))):
        total.add_(values[i], alpha=row[i])
    return total
