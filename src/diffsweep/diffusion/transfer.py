"""The only two ways in which a state ever changes while sampling.

``transfer`` follows the straight line of constant (x0, eps) from one level to a cleaner one, ``renoise`` adds fresh
noise to climb to a noisier one.
"""

from __future__ import annotations

from torch import Tensor

from diffsweep.diffusion.level import Level, scaled


def transfer(x: Tensor, t: Level, s: Level, x0: Tensor) -> Tensor:
    """Move x from level t to level s, aiming at x0: ``x_s = alpha_s x0 + sigma_s (x - alpha_t x0) / sigma_t``.

    This is the deterministic DDIM update (arXiv 2010.02502, eq. 12 with sigma = 0) and, in x / alpha, Euler's step.

    Args:
        x: State at level t, (N, ...).
        t: Level of x, sigma > 0.
        s: Level to reach.
        x0: Point aimed at, of x's shape.
    """
    ratio = s.sigma / t.sigma
    return scaled(x, ratio).add_(x0, alpha=s.alpha - t.alpha * ratio)


def renoise(x: Tensor, t: Level, s: Level, z: Tensor) -> Tensor:
    """Move x from level t up to a noisier level s with fresh unit noise z: the forward process from t to s.

    Args:
        x: State at level t, (N, ...).
        t: Level of x, with t.noise <= s.noise.
        s: Level to reach.
        z: Unit Gaussian noise of x's shape.
    """
    ratio = s.alpha / t.alpha if t.alpha else 0.0
    kick = max(s.sigma**2 - (ratio * t.sigma) ** 2, 0.0) ** 0.5
    return x.add(z, alpha=kick) if ratio == 1 else scaled(x, ratio).add_(z, alpha=kick)
