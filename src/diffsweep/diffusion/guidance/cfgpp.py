"""CFG++: aim at the guided x0 but keep the unguided noise, ``x_s = alpha_s x0_guided + sigma_s eps_without``.

As the aim of a step from t to s, ``alpha_s x0 + sigma_s (x - alpha_t x0) / sigma_t``, this is classifier-free guidance
with a scale that depends on the step:

    scale_t = lambda alpha_s / (alpha_s - alpha_t sigma_s / sigma_t)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.guidance.base import both, check_scale, following, gain
from diffsweep.diffusion.guidance.output import KEEP, OutputMap
from diffsweep.diffusion.level import Level


@dataclass(frozen=True)
class CFGpp:
    """CFG++: Manifold-constrained Classifier Free Guidance (arXiv 2406.08070, algorithm 2).

    Exactly the paper's update with sampler=ddim; in other samplers the same scales are used at the same levels.

    Args:
        strength: The paper's lambda, in [0, 1].
        output: What is done to each guided x0, before the noise is taken into account.

    Raises:
        ValueError: for strength outside [0, 1]; when called without a condition.
    """

    strength: float = 0.6
    output: OutputMap = KEEP

    reads = ()
    compares_absent = True
    keeps_variance = False

    def __post_init__(self) -> None:
        check_scale(self.strength, "strength", 1)

    def __call__(self, denoise: Denoise, levels: Sequence[Level]) -> Denoise:
        def guided(x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
            with_, without = both(denoise, x, level, condition)
            s = following(level, levels)
            return without.lerp(self.output(without.lerp(with_, self.strength)), s.alpha / gain(level, s))

        return guided
