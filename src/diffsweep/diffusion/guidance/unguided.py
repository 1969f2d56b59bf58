"""No guidance: the model's own answer, perhaps with its values kept in range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.guidance.output import KEEP, OutputMap
from diffsweep.diffusion.level import Level


@dataclass(frozen=True)
class Unguided:
    """The denoiser as it is.

    Args:
        output: What is done to each x0.
    """

    output: OutputMap = KEEP

    reads = ()
    compares_absent = False
    keeps_variance = True

    def __call__(self, denoise: Denoise, levels: Sequence[Level]) -> Denoise:
        def guided(x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
            return self.output(denoise(x, level, condition))

        return guided
