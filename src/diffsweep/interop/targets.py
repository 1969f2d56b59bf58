"""What foreign networks predict beside the targets that ours are trained on: negatives, and the score itself."""

from __future__ import annotations

from dataclasses import dataclass

from diffsweep.diffusion.level import Level, Scalar
from diffsweep.diffusion.target import Target


@dataclass(frozen=True)
class Negative(Target):
    """F = -(a x0 + b eps): SiT's velocity x0 - eps, for example, is the negative of flow.

    Args:
        target: Whose negative it is.
    """

    target: Target

    def coefficients(self, level: Level) -> tuple[Scalar, Scalar]:
        a, b = self.target.coefficients(level)
        return -a, -b


@dataclass(frozen=True)
class PlainScore(Target):
    """F = grad log p(x_t) = -eps / sigma, not scaled to unit variance (arXiv 2011.13456, eq. 7)."""

    def coefficients(self, level: Level) -> tuple[Scalar, Scalar]:
        return 0.0, -1 / level.sigma
