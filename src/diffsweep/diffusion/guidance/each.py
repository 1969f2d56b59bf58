"""Guidance by several conditions at once, each with its own scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.guidance.base import check_scale, required
from diffsweep.diffusion.guidance.output import KEEP, OutputMap
from diffsweep.diffusion.level import Level
from diffsweep.mistakes import BadValue, alternatives


@dataclass(frozen=True)
class EachCondition:
    """InstructPix2Pix (arXiv 2211.09800, eq. 3), for any number of conditions.

    They are added one after another, in their order, and each step of the answer is followed by its own scale:

        x0 = x0_none + sum over i of scale_i (x0_(1..i) - x0_(1..i-1))

    It takes a call with one row more than there are conditions for each sample. With one condition it is
    classifier-free guidance.

    Args:
        scale: Of every condition that `scales` does not name.
        scales: By name of the condition, as {label: 3, edges: 1}; None for `scale` throughout.
        output: What is done to each guided x0.

    Raises:
        ValueError: for a scale < 0; when called without a condition, or with one that lacks a name of `scales`.
    """

    scale: float = 2.0
    scales: Mapping[str, float] | None = None
    output: OutputMap = KEEP

    reads = ()
    compares_absent = True
    keeps_variance = False

    def __post_init__(self) -> None:
        check_scale(self.scale)
        if not isinstance(self.scales, Mapping | None):
            raise BadValue("scales", self.scales, "must name conditions, as {label: 3, edges: 1}")
        for name, scale in (self.scales or {}).items():
            check_scale(scale, f"scales.{name}")

    def __call__(self, denoise: Denoise, levels: Sequence[Level]) -> Denoise:
        scales = self.scales or {}

        def guided(x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
            given = required(condition)
            for name in scales.keys() - set(given):
                raise BadValue(
                    "scales", f"{{{name}: ...}}", f"names no condition: choose {alternatives(sorted(given))}"
                )
            names = list(given)
            told = [given.absent(names[i:]) for i in range(len(names))] + [given]
            answers = denoise(torch.cat([x] * len(told)), level, Condition.cat(told)).chunk(len(told))
            x0 = answers[0]
            for name, before, after in zip(names, answers, answers[1:], strict=False):
                x0 = x0.add(after - before, alpha=scales.get(name, self.scale))
            return self.output(x0)

        return guided
