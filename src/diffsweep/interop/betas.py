"""Chains of betas that other libraries have and conf/ does not."""

from __future__ import annotations

import math

from diffsweep.diffusion.schedules.tabulated import Tabulated
from diffsweep.mistakes import share, whole


def cosine_betas(steps: int = 1000, beta_max: float = 0.999) -> Tabulated:
    """Improved DDPM's chain (arXiv 2102.09672, section 3.2: alpha^2 = cos^2 of a shifted time), betas cut at a largest.

    It is `squaredcos_cap_v2` of diffusers.

    Args:
        steps: Length of the chain, >= 1.
        beta_max: Largest beta, in (0, 1).

    Raises:
        ValueError: for a beta outside (0, 1) or steps < 1.
    """
    whole("steps", steps, 1)
    share("beta_max", beta_max, zero=False, one=False)
    alpha2 = [math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(steps + 1)]
    return Tabulated([min(1 - alpha2[i + 1] / alpha2[i], beta_max) for i in range(steps)])
