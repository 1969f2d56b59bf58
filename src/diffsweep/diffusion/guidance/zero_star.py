"""CFG-Zero*: guidance of a velocity, whose answer without a condition is scaled to fit, and that starts late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.guidance.base import both, check_scale
from diffsweep.diffusion.guidance.output import KEEP, OutputMap
from diffsweep.diffusion.level import Level
from diffsweep.mistakes import whole


@dataclass(frozen=True)
class ZeroStar:
    """CFG-Zero*: Improved Classifier-Free Guidance for Flow Matching Models (arXiv 2503.18886, algorithm 1).

    With the velocity v = eps - x0 of an answer, the one without a condition is multiplied by the projection of the one
    with it, `s = <v_with, v_without> / |v_without|^2` of each sample, before the two are compared. While noise is
    highest the answer of an undertrained model is worse than none: there the velocity is zero.

    Args:
        scale: As in classifier-free guidance.
        zero_steps: At so many of the noisiest levels the velocity is zero, >= 0.
        output: What is done to each guided x0.

    Raises:
        ValueError: for scale < 0 or zero_steps < 0; when called without a condition.
    """

    scale: float = 2.0
    zero_steps: int = 1
    output: OutputMap = KEEP

    reads = ()
    compares_absent = True
    keeps_variance = False

    def __post_init__(self) -> None:
        check_scale(self.scale)
        whole("zero_steps", self.zero_steps, 0)

    def __call__(self, denoise: Denoise, levels: Sequence[Level]) -> Denoise:
        # Clean data is never asked about.
        first = levels[: min(self.zero_steps, max(0, len(levels) - 2))]
        still = min((level.noise for level in first), default=float("inf"))

        def guided(x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
            with_, without = (_velocity(x, x0, level) for x0 in both(denoise, x, level, condition))
            if first and level.noise >= still * (1 - 1e-9):
                return self.output(_x0(x, torch.zeros_like(x), level))
            product = (with_ * without).flatten(1).sum(1)
            square = without.square().flatten(1).sum(1)
            # A velocity of zero has no direction, and is as good as any multiple of it.
            factor = torch.where(square > 0, product / square, 1.0).view(-1, *[1] * (x.ndim - 1))
            return self.output(_x0(x, (factor * without).lerp(with_, self.scale), level))

        return guided


def _velocity(x: Tensor, x0: Tensor, level: Level) -> Tensor:
    """eps - x0 of an answer x0 at x = alpha x0 + sigma eps."""
    return (x - (level.alpha + level.sigma) * x0) / level.sigma


def _x0(x: Tensor, velocity: Tensor, level: Level) -> Tensor:
    """The x0 whose velocity that is."""
    return (x - level.sigma * velocity) / (level.alpha + level.sigma)
