"""Distilled guidance: the scale is an input of a network that was taught the guided answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from diffsweep.diffusion.condition import Condition, Entry
from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.guidance.base import check_scale, required
from diffsweep.diffusion.guidance.output import KEEP, OutputMap
from diffsweep.diffusion.level import Level

# Name of the entry of a condition.
SCALE = "guidance"


@runtime_checkable
class ReadsGuidanceScale(Protocol):
    """A network that says whether the scale of a guidance is one of its inputs, as an entry of its condition.

    Attributes:
        reads_guidance_scale: Whether it is.
    """

    reads_guidance_scale: bool


@dataclass(frozen=True)
class Distilled:
    """On Distillation of Guided Diffusion Models (arXiv 2210.03142, section 3.1): the scale is an input of the network.

    Args:
        scale: The input of the network; what it means is what the network was taught.
        output: What is done to each x0.

    Raises:
        ValueError: for scale < 0; when called without a condition.
    """

    scale: float = 3.5
    output: OutputMap = KEEP

    reads = ()
    compares_absent = False
    keeps_variance = False

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def __call__(self, denoise: Denoise, levels: Sequence[Level]) -> Denoise:
        def guided(x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
            given = required(condition)
            scale = Entry(x.new_full((len(x),), self.scale), torch.ones(len(x), dtype=torch.bool, device=x.device))
            return self.output(denoise(x, level, Condition({**given.entries, SCALE: scale})))

        return guided
