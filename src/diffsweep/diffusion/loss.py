"""The loss between the network's prediction and its target, of whole examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from diffsweep.mistakes import above


class Loss(Protocol):
    """A loss."""

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss of each example, (N,), from arguments of one shape (N, ...)."""
        ...


@dataclass(frozen=True)
class SquaredError:
    """The mean of (prediction - target)^2, whose minimiser is the conditional mean."""

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).square().flatten(1).mean(1)


@dataclass(frozen=True)
class Huber:
    """The mean of d^2 for |d| <= delta and delta (2 |d| - delta) beyond: outliers pull linearly (Huber, 1964).

    Args:
        delta: Where the square ends, > 0.
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        above("delta", self.delta)

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        distance = (prediction - target).abs()
        inner = distance.clamp(max=self.delta)
        return (inner * (2 * distance - inner)).flatten(1).mean(1)


@dataclass(frozen=True)
class PseudoHuber:
    """sqrt(|d|^2 + c^2) - c with the norm of the whole example (arXiv 2310.14189, section 3.3).

    Args:
        c: Where it turns from squared to linear, > 0, in units of the square root of the data's dimension.
    """

    c: float = 0.00054

    def __post_init__(self) -> None:
        above("c", self.c)

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        difference = (prediction - target).flatten(1)
        square = difference.square().sum(1)
        c = self.c * difference.shape[1] ** 0.5
        # The difference of two close numbers, written as a quotient that loses no digits.
        return square / ((square + c**2).sqrt() + c)
