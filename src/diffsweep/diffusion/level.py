"""A level (alpha, sigma) says where on the path ``x = alpha x0 + sigma eps`` we stand.

The log signal-to-noise ratio ``logsnr = 2 log(alpha / sigma)`` orders all levels of all schedules; a *path* is a curve
alpha(logsnr), sigma(logsnr). Two levels with the same logsnr differ by a scaling of x only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

# A float for one level shared by a batch (sampling), a tensor for one level per example (training); same formulas.
Scalar: TypeAlias = Any


@dataclass(frozen=True)
class Level:
    """A point on a path.

    Args:
        alpha: Scale of the signal, >= 0: a float for one level shared by a batch (sampling, kept in float64), or a
            tensor of shape (N,) with one level per example (training).
        sigma: Scale of the noise, >= 0, of the same type.
    """

    alpha: Scalar
    sigma: Scalar

    # Plain properties: a cached one takes a lock, which torch.compile cannot trace.
    @property
    def noise(self) -> Scalar:
        """sigma / alpha: the noise in units of the data (Karras' sigma); inf where alpha = 0."""
        if isinstance(self.alpha, Tensor):
            return self.sigma / self.alpha
        return self.sigma / self.alpha if self.alpha else math.inf

    @property
    def logsnr(self) -> Scalar:
        """2 log(alpha / sigma): -inf for pure noise, inf for clean data."""
        if isinstance(self.alpha, Tensor) or isinstance(self.sigma, Tensor):
            return 2 * (torch.as_tensor(self.alpha).log() - torch.as_tensor(self.sigma).log())
        if not self.sigma:
            return math.inf
        return 2 * math.log(self.alpha / self.sigma) if self.alpha else -math.inf

    def like(self, x: Tensor) -> Level:
        """The same level, shaped to multiply ``x`` of shape (N, ...)."""
        if not (isinstance(self.alpha, Tensor) or isinstance(self.sigma, Tensor)):
            return self
        return Level(*(like(value, x) for value in (self.alpha, self.sigma)))

    def at(self, noise: float) -> Level:
        """The level with this alpha and the given noise / alpha ratio (floats only)."""
        return Level(self.alpha, self.alpha * noise)


CLEAN = Level(1.0, 0.0)

_ZERO = torch.zeros(())


def scaled(x: Tensor, factor: Scalar) -> Tensor:
    """``factor x``, as a new tensor."""
    if isinstance(factor, Tensor):
        return factor * x
    # A product makes a tensor of its number first, at more than a small product's own cost; a sum takes it as it is.
    return _ZERO.add(x, alpha=factor)


def like(value: Scalar, x: Tensor) -> Scalar:
    """A number, or a tensor (N,) shaped to multiply ``x`` of shape (N, ...), of its type."""
    return value.view(-1, *[1] * (x.ndim - 1)).to(x.dtype) if isinstance(value, Tensor) and value.ndim else value


def preserving(logsnr: Tensor) -> Level:
    """The variance-preserving path, alpha^2 + sigma^2 = 1 (Score-Based Generative Modeling, arXiv 2011.13456, VP)."""
    return Level(torch.sigmoid(logsnr).sqrt(), torch.sigmoid(-logsnr).sqrt())


def exploding(logsnr: Tensor) -> Level:
    """The variance-exploding path, alpha = 1 (arXiv 2011.13456, VE; EDM, arXiv 2206.00364)."""
    return Level(torch.ones_like(logsnr), torch.exp(-logsnr / 2))


def straight(logsnr: Tensor) -> Level:
    """The straight path, alpha + sigma = 1 (Flow Straight and Fast, arXiv 2209.03003)."""
    return Level(torch.sigmoid(logsnr / 2), torch.sigmoid(-logsnr / 2))
