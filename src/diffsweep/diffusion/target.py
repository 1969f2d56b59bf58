"""What the network regresses is always ``F = a x0 + b eps``; with ``x = alpha x0 + sigma eps`` two lines invert it.

    x0 = skip x + out F,   skip = b / (alpha b - sigma a),   out = -sigma / (alpha b - sigma a)

So N parametrisations need N pairs (a, b), never N^2 conversions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from diffsweep.diffusion.level import Level, Scalar
from diffsweep.mistakes import above


class Target(ABC):
    """A linear combination of data and noise."""

    @abstractmethod
    def coefficients(self, level: Level) -> tuple[Scalar, Scalar]:
        """(a, b) of ``F = a x0 + b eps`` at this level."""

    @final
    def skip_out(self, level: Level) -> tuple[Scalar, Scalar]:
        """(skip, out) of ``x0 = skip x + out F``; infinite where F does not determine x0."""
        a, b = self.coefficients(level)
        determinant = level.alpha * b - level.sigma * a
        if isinstance(determinant, float) and determinant == 0:
            return float("inf"), float("inf")
        return b / determinant, -level.sigma / determinant


@dataclass(frozen=True)
class X0(Target):
    """F = x0 (Progressive Distillation, arXiv 2202.00512, section 4)."""

    def coefficients(self, level: Level) -> tuple[Scalar, Scalar]:
        return 1.0, 0.0


@dataclass(frozen=True)
class Eps(Target):
    """F = eps (DDPM, arXiv 2006.11239, eq. 14)."""

    def coefficients(self, level: Level) -> tuple[Scalar, Scalar]:
        return 0.0, 1.0


@dataclass(frozen=True)
class Score(Target):
    """F = sigma grad log p(x_t) = -eps, the score scaled to unit variance (arXiv 2011.13456, section 3.3, eq. 7).

    Its squared error is the score's with weight sigma^2.
    """

    def coefficients(self, level: Level) -> tuple[Scalar, Scalar]:
        return 0.0, -1.0


@dataclass(frozen=True)
class V(Target):
    """F = alpha eps - sigma x0 (Progressive Distillation, arXiv 2202.00512, appendix D)."""

    def coefficients(self, level: Level) -> tuple[Scalar, Scalar]:
        return -level.sigma, level.alpha


@dataclass(frozen=True)
class Flow(Target):
    """F = eps - x0, the velocity of the straight path (Flow Matching, arXiv 2210.02747; arXiv 2209.03003)."""

    def coefficients(self, level: Level) -> tuple[Scalar, Scalar]:
        return -1.0, 1.0


@dataclass(frozen=True)
class EDM(Target):
    """Karras' preconditioned output: unit variance at every level (arXiv 2206.00364, table 1 and appendix B.6).

    With s = sigma_data and r = sqrt(sigma^2 + alpha^2 s^2): F = (sigma / (s r)) x0 - (alpha s / r) eps, which is the
    EDM paper's network output for alpha = 1, and -v for s = 1 on the variance-preserving path.

    Args:
        sigma_data: Root mean square of the data.

    Raises:
        ValueError: unless sigma_data > 0.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        above("sigma_data", self.sigma_data)

    def coefficients(self, level: Level) -> tuple[Scalar, Scalar]:
        s = self.sigma_data
        root = (level.sigma**2 + level.alpha**2 * s**2) ** 0.5
        return level.sigma / (s * root), -level.alpha * s / root
