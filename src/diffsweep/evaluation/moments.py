"""Mean and covariance of features in float64: what a Frechet distance knows of a set, merged batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and covariance of `n` feature vectors.

    Attributes:
        mean: float64 (d,), on the CPU.
        cov: float64 (d, d), with divisor n - 1 (zero when n is 1), on the CPU.
        n: number of vectors.
    """

    mean: Tensor
    cov: Tensor
    n: int

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Moments of finite features (n, d), n >= 1, from any device."""
        x = double(features)
        mean = x.sum(dim=0) / max(len(x), 1)
        centred = x - mean
        return cls(mean.cpu(), (centred.T @ centred / max(len(x) - 1, 1)).cpu(), len(x))

    def merge(self, other: Moments) -> Moments:
        """Moments of both sets together, as if their features had been seen at once.

        Source: T. Chan, G. Golub, R. LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
        Variances" (1979), equation 2.1: only differences of means are squared, so nothing cancels.
        """
        n = self.n + other.n
        delta = other.mean - self.mean
        scatter = self.cov * (self.n - 1) + other.cov * (other.n - 1)
        scatter += torch.outer(delta, delta) * (self.n * other.n / n)
        return Moments(self.mean + delta * (other.n / n), scatter / (n - 1), n)


def double(x: Tensor) -> Tensor:
    """Values in float64 where they lie, or on the CPU where the device has no float64."""
    return x.to("cpu" if x.device.type == "mps" else x.device).to(torch.float64)
