"""Rescaled guidance: each guided sample gets back the standard deviation that it had with its label alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.guidance.base import both, check_scale, required
from diffsweep.diffusion.guidance.output import KEEP, OutputMap
from diffsweep.diffusion.level import Level


@dataclass(frozen=True)
class Rescaled:
    """Common Diffusion Noise Schedules and Sample Steps Are Flawed (arXiv 2305.08891, section 3.4).

    The guided x0 is multiplied by ``phi std(x0_with) / std(x0_guided) + 1 - phi``, the deviations taken over each
    sample. The paper does this to the network's output v; here it is x0, whatever the network predicts.

    Args:
        scale: As in classifier-free guidance; 1 is one pass.
        phi: Share of the rescaling, in [0, 1]; 0 is plain classifier-free guidance.
        output: What is done to each guided x0.

    Raises:
        ValueError: for scale < 0 or phi outside [0, 1]; when called without a condition.
    """

    scale: float = 3.0
    phi: float = 0.7
    output: OutputMap = KEEP

    reads = ()
    compares_absent = True
    keeps_variance = False

    def __post_init__(self) -> None:
        check_scale(self.scale)
        check_scale(self.phi, "phi", 1)

    def __call__(self, denoise: Denoise, levels: Sequence[Level]) -> Denoise:
        def guided(x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
            if self.scale == 1:
                return self.output(denoise(x, level, required(condition)))
            with_, without = both(denoise, x, level, condition)
            x0 = without.lerp(with_, self.scale)
            wanted, found = (value.flatten(1).std(1, correction=0) for value in (with_, x0))
            # A constant sample, as a single number, has no deviation to match.
            ratio = torch.where((wanted > 0) & (found > 0), wanted / found, 1.0)
            factor = self.phi * ratio + (1 - self.phi)
            return self.output(x0 * factor.view(-1, *[1] * (x.ndim - 1)))

        return guided
