"""Guidance in an interval of noise levels: harmful at high noise, superfluous at low noise, so only in between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.guidance.base import both, check_scale, required
from diffsweep.diffusion.guidance.output import KEEP, OutputMap
from diffsweep.diffusion.level import Level
from diffsweep.mistakes import BadValue


@dataclass(frozen=True)
class Interval:
    """Applying Guidance in a Limited Interval (arXiv 2404.07724): classifier-free if noise_min < noise <= noise_max.

    Outside, the conditional model in one pass.

    Args:
        scale: Inside the interval, as in classifier-free guidance.
        noise_min: Lowest noise sigma / alpha (not included), >= 0.
        noise_max: Highest noise, above noise_min.
        output: What is done to each x0.

    Raises:
        ValueError: for scale < 0 or an empty interval; when called without a condition.
    """

    scale: float = 2.0
    noise_min: float = 0.3
    noise_max: float = 5.0
    output: OutputMap = KEEP

    reads = ()
    compares_absent = True
    keeps_variance = False

    def __post_init__(self) -> None:
        check_scale(self.scale)
        if not 0 <= self.noise_min < self.noise_max or math.isinf(self.noise_min):
            raise BadValue("noise_min", self.noise_min, f"must be at least 0 and below noise_max={self.noise_max}")

    def __call__(self, denoise: Denoise, levels: Sequence[Level]) -> Denoise:
        def guided(x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
            if self.scale == 1 or not self.noise_min < level.noise <= self.noise_max:
                return self.output(denoise(x, level, required(condition)))
            with_, without = both(denoise, x, level, condition)
            return self.output(without.lerp(with_, self.scale))

        return guided
