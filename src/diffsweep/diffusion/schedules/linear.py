"""DDPM's linear betas: beta_i rises linearly from ``beta_start`` to ``beta_end`` over ``steps`` points."""

from __future__ import annotations

import torch

from diffsweep.diffusion.schedules.tabulated import Tabulated


def linear_betas(beta_start: float = 1e-4, beta_end: float = 0.02, steps: int = 1000) -> Tabulated:
    """Denoising Diffusion Probabilistic Models (arXiv 2006.11239, section 4), exact at its 1,000 points.

    Args:
        beta_start: First beta, in (0, 1).
        beta_end: Last beta, in (0, 1).
        steps: Length of the chain, >= 1.

    Raises:
        ValueError: for a beta outside (0, 1) or steps < 1.
    """
    if steps < 1:
        raise ValueError(f"steps={steps} must be at least 1")
    return Tabulated(torch.linspace(beta_start, beta_end, steps, dtype=torch.float64).tolist())
