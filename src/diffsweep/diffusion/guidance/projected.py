"""Adaptive projected guidance: only the part of the difference that is orthogonal to the answer is followed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.guidance.base import both, check_scale
from diffsweep.diffusion.guidance.output import KEEP, OutputMap
from diffsweep.diffusion.level import Level
from diffsweep.mistakes import BadValue, above


@dataclass(frozen=True)
class Projected:
    """Eliminating Oversaturation and Artifacts of High Guidance Scales (APG, arXiv 2410.02416, algorithm 1).

    The difference of the answers with and without the condition is added to `momentum` times what was followed before,
    cut to the length `radius`, and split into the part along the answer with the condition, which saturates and is
    multiplied by `parallel`, and the rest.

    Args:
        scale: As in classifier-free guidance.
        parallel: The paper's eta, in [0, 1]; 1 keeps the whole difference.
        radius: Largest length of a sample's difference, in units of the square root of its number of values, > 0; null
            leaves it.
        momentum: The paper's beta, between -1 and 1; negative leads away from where guidance went before.
        output: What is done to each guided x0.

    Raises:
        ValueError: for a value out of range; when called without a condition.
    """

    scale: float = 4.0
    parallel: float = 0.0
    radius: float | None = None
    momentum: float = -0.5
    output: OutputMap = KEEP

    reads = ()
    compares_absent = True
    keeps_variance = False

    def __post_init__(self) -> None:
        check_scale(self.scale)
        check_scale(self.parallel, "parallel", 1)
        if self.radius is not None:
            above("radius", self.radius)
        if not isinstance(self.momentum, (int, float)) or not -1 < self.momentum < 1:
            raise BadValue("momentum", self.momentum, "must be between -1 and 1")

    def __call__(self, denoise: Denoise, levels: Sequence[Level]) -> Denoise:
        # What was followed so far, of the batch that is sampled now: its first call is at the noisiest level.
        before: list[tuple[float, Tensor]] = []
        noisiest = levels[0].noise * (1 - 1e-9) if levels else math.inf

        def guided(x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
            with_, without = both(denoise, x, level, condition)
            difference = with_ - without
            if before and (level.noise >= noisiest or level.noise > before[0][0] or before[0][1].shape != x.shape):
                # Another batch, or a sampler that goes back.
                before.clear()
            if before:
                difference = difference + self.momentum * before[0][1]
            before[:] = [(level.noise, difference)]
            followed = difference.flatten(1)
            if self.radius is not None:
                longest = self.radius * followed.shape[1] ** 0.5
                followed = followed * (longest / followed.norm(dim=1, keepdim=True)).clamp(max=1)
            along = with_.flatten(1)
            square = along.square().sum(1, keepdim=True)
            share = (followed * along).sum(1, keepdim=True) / torch.where(square > 0, square, 1.0)
            followed = followed - (1 - self.parallel) * share * along
            return self.output(with_.add(followed.view_as(x), alpha=self.scale - 1))

        return guided
