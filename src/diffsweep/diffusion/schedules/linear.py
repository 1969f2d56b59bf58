"""Chains of betas over ``steps`` points: linear (DDPM's), and linear in sqrt(beta) (Stable Diffusion's)."""

from __future__ import annotations

import torch

from diffsweep.diffusion.schedules.tabulated import Tabulated
from diffsweep.mistakes import share, whole


def linear_betas(beta_start: float = 1e-4, beta_end: float = 0.02, steps: int = 1000) -> Tabulated:
    """Denoising Diffusion Probabilistic Models (arXiv 2006.11239, section 4), exact at its 1,000 points.

    Args:
        beta_start: First beta, in (0, 1).
        beta_end: Last beta, in (0, 1).
        steps: Length of the chain, >= 1.

    Raises:
        ValueError: for a beta outside (0, 1) or steps < 1.
    """
    return _powers(beta_start, beta_end, steps, 1)


def scaled_linear_betas(beta_start: float = 0.00085, beta_end: float = 0.012, steps: int = 1000) -> Tabulated:
    """The schedule of latent diffusion (arXiv 2112.10752) as Stable Diffusion uses it: sqrt(beta) rises linearly.

    Args:
        beta_start: First beta, in (0, 1).
        beta_end: Last beta, in (0, 1).
        steps: Length of the chain, >= 1.

    Raises:
        ValueError: for a beta outside (0, 1) or steps < 1.
    """
    return _powers(beta_start, beta_end, steps, 2)


def _powers(beta_start: float, beta_end: float, steps: int, power: int) -> Tabulated:
    whole("steps", steps, 1)
    for name, beta in (("beta_start", beta_start), ("beta_end", beta_end)):
        share(name, beta, zero=False, one=False)
    roots = torch.linspace(beta_start ** (1 / power), beta_end ** (1 / power), steps, dtype=torch.float64)
    return Tabulated((roots**power).tolist())
