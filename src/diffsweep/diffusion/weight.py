"""How much each level's error counts, always stated as the weight of ``|x0_hat - x0|^2``.

In these units schemes can be compared whatever the network predicts; ``out`` is d x0 / dF of the target, so that
the squared error of the network's own output is the weight ``1 / out^2``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from diffsweep.diffusion.level import Level, Scalar


class Weight(Protocol):
    """A weight over levels."""

    def __call__(self, level: Level, out: Scalar) -> Scalar:
        """The weight of the squared error in x0 at levels of shape (N,), given d x0 / dF there."""
        ...


@dataclass(frozen=True)
class Output:
    """1 / out^2: the plain squared error of what the network predicts.

    For eps this is DDPM's simple loss (arXiv 2006.11239, eq. 14), for EDM's target EDM's weight
    (arXiv 2206.00364, table 1), for v the weight snr + 1 (arXiv 2202.00512, eq. 9).
    """

    def __call__(self, level: Level, out: Scalar) -> Scalar:
        return out**-2.0


@dataclass(frozen=True)
class Uniform:
    """1: the plain squared error of x0."""

    def __call__(self, level: Level, out: Scalar) -> Scalar:
        return out**0.0


@dataclass(frozen=True)
class SNR:
    """alpha^2 / sigma^2: the squared error of eps, whatever the network predicts."""

    def __call__(self, level: Level, out: Scalar) -> Scalar:
        return (level.alpha / level.sigma) ** 2


@dataclass(frozen=True)
class MinSNR:
    """min(snr, gamma) (Efficient Diffusion Training via Min-SNR Weighting, arXiv 2303.09556, section 3.3).

    Args:
        gamma: Largest weight, > 0.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ValueError(f"diffuser.weight.gamma={self.gamma} must be above 0")

    def __call__(self, level: Level, out: Scalar) -> Scalar:
        return ((level.alpha / level.sigma) ** 2).clamp(max=self.gamma)
