"""How far chance moves a number: the delete-a-block jackknife.

With g blocks and theta_k the number without block k, the standard error is sqrt((g - 1) / g sum (theta_k - mean)^2),
and theta +- t se is the 95 % interval, t Student's quantile at g - 1 degrees of freedom. It is too wide rather than too
narrow on average (B. Efron, C. Stein, "The Jackknife Estimate of Variance", 1981), needs no assumption about the
metric, and never repeats a sample, as a bootstrap does and nearest neighbours and unbiased kernels cannot bear.

What is estimated is the number that other samples of the same model, as many, would have on average: its bias with the
number of samples is part of it, which is why numbers are compared at equal numbers only. Samples with the same number
start from the same noise in every cell. So theta_k of two cells move together, and their difference is known better
than either: the interval of a difference is that of theta_k - theta'_k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number and the same without each block.

    Attributes:
        value: of all samples.
        without: without each of g >= 2 blocks.
        by: what measured it, with its settings.
    """

    value: float
    without: Sequence[float]
    by: str = ""

    @property
    def error(self) -> float:
        """Standard error."""
        mean = math.fsum(self.without) / len(self.without)
        squares = math.fsum((value - mean) ** 2 for value in self.without)
        return math.sqrt((len(self.without) - 1) / len(self.without) * squares)

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the 95 % interval."""
        reach = float(stdtrit(len(self.without) - 1, (1 + LEVEL) / 2)) * self.error
        return self.value - reach, self.value + reach
