"""Classifier-free guidance: from the answer without a condition through the answer with it, and beyond."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.guidance.base import both, check_scale, required
from diffsweep.diffusion.guidance.output import KEEP, OutputMap
from diffsweep.diffusion.level import Level


@dataclass(frozen=True)
class ClassifierFree:
    """Classifier-Free Diffusion Guidance (arXiv 2207.12598, eq. 6, with scale = 1 + w).

    Args:
        scale: 0 ignores the condition, 1 is the conditional model (either is one pass instead of two), more
            exaggerates.
        output: What is done to each guided x0.

    Raises:
        ValueError: for scale < 0; when called without a condition.

    Example:
        >>> import torch
        >>> from diffsweep.diffusion import Condition, Level
        >>> def denoise(x, level, condition=None):
        ...     label = condition["label"]
        ...     return torch.where(label.present, label.value, 10)[:, None] * torch.ones_like(x)
        >>> guided = ClassifierFree(scale=3.0)(denoise, [])
        >>> guided(torch.zeros(1, 2), Level(0.6, 0.8), Condition.of(label=torch.tensor([9])))
        tensor([[7., 7.]])
    """

    scale: float = 2.0
    output: OutputMap = KEEP

    reads = ()
    compares_absent = True
    keeps_variance = False

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def __call__(self, denoise: Denoise, levels: Sequence[Level]) -> Denoise:
        def guided(x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
            if self.scale == 1:
                return self.output(denoise(x, level, required(condition)))
            if self.scale == 0:
                return self.output(denoise(x, level, required(condition).opposite()))
            with_, without = both(denoise, x, level, condition)
            return self.output(without.lerp(with_, self.scale))

        return guided
