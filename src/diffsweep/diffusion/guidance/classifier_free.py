"""Classifier-free guidance: from the answer without a label through the answer with it, and beyond."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.guidance.base import both, check_classes, check_scale, labels
from diffsweep.diffusion.guidance.output import KEEP, OutputMap
from diffsweep.diffusion.level import Level


@dataclass(frozen=True)
class ClassifierFree:
    """Classifier-Free Diffusion Guidance (arXiv 2207.12598, eq. 6, with scale = 1 + w).

    Args:
        classes: Number of labels, which as a label means "no label"; >= 1.
        scale: 0 ignores the label, 1 is the conditional model (either is one pass instead of two), more exaggerates.
        output: What is done to each guided x0.

    Raises:
        ValueError: for classes < 1 or scale < 0; when called without labels.

    Example:
        >>> import torch
        >>> from diffsweep.diffusion import Level
        >>> def denoise(x, level, condition=None):
        ...     return condition[:, None] * torch.ones_like(x)
        >>> guided = ClassifierFree(classes=10, scale=3.0)(denoise, [])
        >>> guided(torch.zeros(1, 2), Level(0.6, 0.8), torch.tensor([9]))
        tensor([[7., 7.]])
    """

    classes: int
    scale: float = 2.0
    output: OutputMap = KEEP

    uses_labels = True
    compares_unlabelled = True
    keeps_variance = False

    def __post_init__(self) -> None:
        check_classes(self.classes)
        check_scale(self.scale)

    def __call__(self, denoise: Denoise, levels: Sequence[Level]) -> Denoise:
        def guided(x: Tensor, level: Level, condition: Tensor | None = None) -> Tensor:
            if self.scale == 1:
                return self.output(denoise(x, level, labels(condition)))
            if self.scale == 0:
                return self.output(denoise(x, level, torch.full_like(labels(condition), self.classes)))
            with_, without = both(denoise, x, level, condition, self.classes)
            return self.output(without.lerp(with_, self.scale))

        return guided
