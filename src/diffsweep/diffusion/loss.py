"""The elementwise loss between the network's prediction and its target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Loss(Protocol):
    """An elementwise loss."""

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss of every element, of the arguments' shape."""
        ...


@dataclass(frozen=True)
class SquaredError:
    """(prediction - target)^2, whose minimiser is the conditional mean."""

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).square()
