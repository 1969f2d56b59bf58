"""UniPC: the polynomial through the last x0 in lambda = logsnr / 2, and once more with the new x0, at no extra cost.

The predictor's weights p and the corrector's c are those of the exact integral of the polynomial, for which the paper's
function B(h) cancels; it acts only where the paper rounds a solution to 1/2: in the predictor of order 2 and the
corrector of order 1. Correcting the state after the new x0 is known is the same as shifting the next aim, since
``transfer``, x_s = r x + g x0 with r = sigma_s / sigma_t and g = alpha_s - alpha_t r, is linear in it:

    aim = sum_j p_j x0_j + (r / g) g_before (sum_j c_j x0_j - sum_j p_before_j x0_j)

so that all of UniPC is one table of weights on the last values of x0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.level import Level
from diffsweep.diffusion.noise import Leg
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.solvers.multistep import Memory, advance, start
from diffsweep.diffusion.solvers.quadrature import weights
from diffsweep.mistakes import one_of, whole


@dataclass(frozen=True)
class UniPC:
    """UniPC (arXiv 2302.04867), in its form that predicts the data. One evaluation a step.

    Args:
        values: Number p of values in the predictor, 1 to 3; the corrector has one more, which raises the order by one.
        variant: bh1 (B = h) or bh2 (B = e^h - 1).
        correct: Whether the corrector acts.
    """

    values: int = 2
    variant: str = "bh2"
    correct: bool = True

    def __post_init__(self) -> None:
        whole("values", self.values, 1, 3)
        one_of("variant", self.variant, ("bh1", "bh2"))

    @property
    def order(self) -> int:
        return self.values + self.correct

    def nfe(self, steps: int) -> int:
        return steps

    def plan(self, legs: Sequence[Leg], schedule: Schedule) -> Memory:
        inner = [leg.s.sigma > 0 and leg.u.sigma > 0 for leg in legs]
        past, known = [], 0
        for i, leg in enumerate(legs):
            known = known + 1 if leg.t.alpha else 0
            # As in the authors' code, the number of values falls again towards the end.
            count = min(self.values, known, len(legs) - i) if inner[i] else 1
            past.append([legs[i - j].t for j in range(max(1, count))])
        predictor = self._table(past, legs, schedule)
        rows = list(predictor)
        corrected = [i for i in range(len(legs) - 1) if self.correct and inner[i] and past[i][0].alpha]
        nodes = [[*past[i], legs[i].s] for i in corrected]
        corrector = self._table(nodes, [legs[i] for i in corrected], schedule)
        for i, (*old, new) in zip(corrected, corrector, strict=True):
            ratio = legs[i + 1].u.sigma / legs[i + 1].t.sigma * _gain(legs[i]) / _gain(legs[i + 1])
            change = [new, *(c - p for c, p in zip(old, predictor[i], strict=True))]
            rows[i + 1] = [w + ratio * c for w, c in itertools.zip_longest(rows[i + 1], change, fillvalue=0.0)]
        return start("x0", rows, legs)

    def _table(self, nodes: Sequence[Sequence[Level]], legs: Sequence[Leg], schedule: Schedule) -> list[list[float]]:
        """The weights of each leg's nodes: exact ones for three and more, the paper's 1/2 for two."""
        rows = [self._half(leg, known[1]) if len(known) == 2 else [1.0] for leg, known in zip(legs, nodes, strict=True)]
        for count in range(3, self.values + 2):
            chosen = [i for i, known in enumerate(nodes) if len(known) == count]
            found = weights("x0", "logsnr", [nodes[i] for i in chosen], [legs[i] for i in chosen], schedule)
            for i, row in zip(chosen, found, strict=True):
                rows[i] = row
        return rows

    def _half(self, leg: Leg, other: Level) -> list[float]:
        h = (leg.s.logsnr - leg.t.logsnr) / 2
        shrinks = -math.expm1(-h)
        size = h if self.variant == "bh1" else shrinks
        share = 0.5 * size / shrinks * (2 * h) / (other.logsnr - leg.t.logsnr)
        return [1 - share, share]

    def aim(self, denoise: Denoise, x: Tensor, t: Level, s: Level, memory: Memory) -> tuple[Tensor, Memory]:
        return advance("x0", denoise(x, t), x, t, memory)


def _gain(leg: Leg) -> float:
    """What ``transfer`` multiplies the aim by."""
    return leg.u.alpha - leg.t.alpha * leg.u.sigma / leg.t.sigma
