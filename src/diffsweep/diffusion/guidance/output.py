"""Output handlers, x0 -> x0: data lie in [-1, 1], and a denoised x that leaves this range is brought back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diffsweep.mistakes import BadValue, share


class OutputMap(Protocol):
    """A map of the denoised x, for each sample by itself."""

    def __call__(self, x0: Tensor) -> Tensor:
        """x0 of shape (N, ...) as it should have been."""
        ...


@dataclass(frozen=True)
class Keep:
    """x0 as it is."""

    def __call__(self, x0: Tensor) -> Tensor:
        return x0


KEEP = Keep()


@dataclass(frozen=True)
class Clip:
    """Static thresholding: x0 clipped to [-bound, bound], as in DDPM's code (arXiv 2006.11239).

    Args:
        bound: Largest absolute value of the data, > 0.

    Raises:
        ValueError: unless bound > 0.
    """

    bound: float = 1.0

    def __post_init__(self) -> None:
        _check_bound(self.bound)

    def __call__(self, x0: Tensor) -> Tensor:
        return x0.clamp(-self.bound, self.bound)


@dataclass(frozen=True)
class Dynamic:
    """Dynamic thresholding (Imagen, arXiv 2205.11487, section 2.3): clip at a quantile, then shrink to the bound.

    With q the quantile of a sample's absolute values and m = max(q, bound): x0 -> clip(x0, -m, m) bound / m.

    Args:
        quantile: Of the absolute values, in (0, 1].
        bound: Largest absolute value of the data, > 0.

    Raises:
        ValueError: for a quantile or a bound out of range.

    Example:
        >>> Dynamic(quantile=0.5)(torch.tensor([[0.0, 2.0, -4.0], [0.1, 0.2, 0.9]]))
        tensor([[ 0.0000,  1.0000, -1.0000],
                [ 0.1000,  0.2000,  0.9000]])
    """

    quantile: float = 0.995
    bound: float = 1.0

    def __post_init__(self) -> None:
        _check_bound(self.bound)
        share("quantile", self.quantile, zero=False)

    def __call__(self, x0: Tensor) -> Tensor:
        # kthvalue instead of quantile: no limit on the size of a picture, no interpolation between two pixels.
        sizes = x0.abs().flatten(1)
        k = max(1, round(self.quantile * sizes.shape[1]))
        most = sizes.kthvalue(k, dim=1).values.clamp(min=self.bound).view(-1, *[1] * (x0.ndim - 1))
        return torch.clamp(x0, -most, most) * (self.bound / most)


def _check_bound(bound: float) -> None:
    if not bound > 0:
        raise BadValue("bound", bound, "must be above 0: the largest absolute value of the data")
