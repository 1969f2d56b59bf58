"""Classifier guidance: Bayes' rule for the score, in terms of x0.

    E[x0 | x, y] = E[x0 | x] + (sigma^2 / alpha) grad_x log p(y | x)

is exact for an exact p(y | x). A classifier of clean data stands in for it by ``log p(y | x0(x))``, differentiated
through the denoiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.guidance.base import check_scale, required
from diffsweep.diffusion.guidance.gradient import usable, with_gradient
from diffsweep.diffusion.guidance.output import KEEP, OutputMap
from diffsweep.diffusion.level import Level


class Judge(Protocol):
    """A differentiable classifier; one that knows noise reads x and level, one of clean data reads x0."""

    def __call__(self, x: Tensor, level: Level, x0: Tensor) -> Tensor:
        """Scores (N, K) whose softmax over K is p(y | x), for x and its denoised x0 of shape (N, ...)."""
        ...


@dataclass(frozen=True)
class ByClassifier:
    """Diffusion Models Beat GANs (arXiv 2105.05233, section 4), for any classifier and deterministic samplers too.

    Args:
        classifier: Of noisy or of denoised data.
        scale: 0 ignores the label, 1 is Bayes' rule, more exaggerates.
        output: What is done to each guided x0.

    Raises:
        ValueError: for scale < 0; when called without a condition.

    Example:
        >>> import torch
        >>> from diffsweep.diffusion import Condition, GaussianMixture, Level
        >>> right_or_left = lambda x, level, x0: torch.cat([x0, -x0], dim=1)
        >>> mixture = GaussianMixture.of([0.5, 0.5], [[1.0], [-1.0]], [0.5, 0.5])
        >>> guided = ByClassifier(right_or_left)(mixture, [])
        >>> bool(guided(torch.zeros(1, 1), Level(0.6, 0.8), Condition.of(label=torch.tensor([0]))) > 0)
        True
    """

    classifier: Judge
    scale: float = 1.0
    output: OutputMap = KEEP

    reads = ("label",)
    compares_absent = False
    keeps_variance = False

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def __call__(self, denoise: Denoise, levels: Sequence[Level]) -> Denoise:
        def guided(x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
            condition = required(condition).map(usable)
            wanted = condition["label"].value
            # Pure noise tells nothing about x0, and so nothing about the label.
            if self.scale == 0 or level.alpha == 0:
                return self.output(denoise(x, level, condition))

            def judged(x: Tensor) -> tuple[Tensor, Tensor]:
                x0 = denoise(x, level, condition)
                scores = torch.log_softmax(self.classifier(x, level, x0), dim=1)
                return x0, scores.gather(1, wanted[:, None])

            x0, gradient = with_gradient(judged, x)
            return self.output(x0.add(gradient, alpha=self.scale * level.sigma**2 / level.alpha))

        return guided
