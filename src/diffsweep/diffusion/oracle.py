"""The oracle: a Gaussian mixture has a closed-form denoiser, and in one dimension a closed-form probability flow.

With data sum_k w_k N(m_k, s_k^2 I), x_t is a mixture with means alpha m_k and variances v_k = alpha^2 s_k^2 + sigma^2:

    E[x0 | x] = sum_k p(k | x) (m_k + (alpha s_k^2 / v_k) (x - alpha m_k))

In one dimension the probability-flow ODE keeps quantiles: ``x_s = F_s^-1(F_t(x_t))``. No sampler can be wrong about
its order, and no stochastic one about its marginal, without these two lines noticing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.level import CLEAN, Level


@dataclass(frozen=True)
class GaussianMixture:
    """An isotropic Gaussian mixture over flat vectors; an instance is an exact ``denoise``.

    Args:
        weights: (K,), positive, sum 1.
        means: (K, D).
        stds: (K,), > 0.
    """

    weights: Tensor
    means: Tensor
    stds: Tensor

    @classmethod
    def of(cls, weights: Sequence[float], means: Sequence[Sequence[float]], stds: Sequence[float]) -> GaussianMixture:
        """A mixture from plain lists, kept in float64."""
        return cls(*(torch.as_tensor(value, dtype=torch.float64) for value in (weights, means, stds)))

    def __call__(self, x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
        """E[x0 | x] for x of shape (N, D) and one level (floats) or one per row (tensors of shape (N,))."""
        y = x.to(torch.float64)[:, None]
        here = level.like(y)
        alpha, sigma = here.alpha, here.sigma
        shift = y - alpha * self.means
        variance = (alpha * self.stds[:, None]) ** 2 + sigma**2
        density = (shift**2 / variance).sum(-1) + x.shape[1] * variance.log().squeeze(-1)
        posterior = torch.softmax(self.weights.log() - density / 2, dim=-1)
        centre = self.means + alpha * self.stds[:, None] ** 2 / variance * shift
        return (posterior[..., None] * centre).sum(1).to(x.dtype)

    def log_prob(self, x: Tensor, level: Level = CLEAN) -> Tensor:
        """Log-density of the marginal at a level (floats), in nats, (N,), for x of shape (N, D)."""
        variance = (level.alpha * self.stds) ** 2 + level.sigma**2
        square = (x.to(torch.float64)[:, None] - level.alpha * self.means).square().sum(-1)
        normal = -(square / variance + x.shape[1] * (2 * math.pi * variance).log()) / 2
        return torch.logsumexp(self.weights.log() + normal, 1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n exact samples, (n, D), float64."""
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        return self.means[which] + self.stds[which, None] * noise

    def cdf(self, x: Tensor, level: Level) -> Tensor:
        """F_t(x) of the marginal at a level (floats), one dimension: x of shape (N,) or (N, 1)."""
        scale = ((level.alpha * self.stds) ** 2 + level.sigma**2) ** 0.5
        z = (x.reshape(-1, 1).to(torch.float64) - level.alpha * self._line()) / scale
        return (torch.special.ndtr(z) * self.weights).sum(-1).reshape(x.shape)

    def quantile(self, p: Tensor, level: Level, iterations: int = 200) -> Tensor:
        """F_t^-1(p) of the marginal at a level, one dimension, by bisection to float64's end."""
        scale = ((level.alpha * self.stds) ** 2 + level.sigma**2) ** 0.5
        low = torch.full_like(p, float((level.alpha * self._line() - 40 * scale).min()))
        high = torch.full_like(p, float((level.alpha * self._line() + 40 * scale).max()))
        for _ in range(iterations):
            middle = (low + high) / 2
            below = self.cdf(middle, level) < p
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def flow(self, x: Tensor, t: Level, s: Level) -> Tensor:
        """The exact probability flow of x from level t to level s, one dimension."""
        return self.quantile(self.cdf(x, t), s)

    def _line(self) -> Tensor:
        if self.means.shape[1] != 1:
            raise ValueError(f"quantiles exist in one dimension only, but this mixture has {self.means.shape[1]}")
        return self.means[:, 0]
