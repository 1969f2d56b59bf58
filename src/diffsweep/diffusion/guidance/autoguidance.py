"""Autoguidance: away from the mistakes that a weaker version of the same model makes more of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.guidance.base import check_scale
from diffsweep.diffusion.guidance.output import KEEP, OutputMap
from diffsweep.diffusion.level import Level
from diffsweep.mistakes import BadValue


@dataclass(frozen=True)
class Autoguidance:
    """Guiding a Diffusion Model with a Bad Version of Itself (arXiv 2406.02507, section 3).

    Both models are told the same labels, if any.

    Args:
        weak: A smaller or less trained model of the same data; in a config, the name of its finished fit, or `self` for
            the model itself at an earlier step.
        scale: 0 is the weak model, 1 the model itself (without asking the weak one), more goes beyond.
        output: What is done to each guided x0.
        step: The step whose weights the weak model has, one of ``training.keep`` of its training; None for those that
            its training chose, and for `self` for the earliest. Whoever loads the model follows it.

    Raises:
        ValueError: without a weak model, or for scale < 0.

    Example:
        >>> import torch
        >>> from diffsweep.diffusion import GaussianMixture, Level
        >>> good, weak = (GaussianMixture.of([1.0], [[0.0]], [std]) for std in (1.0, 2.0))
        >>> x, level = torch.ones(1, 1), Level(0.6, 0.8)
        >>> bool(Autoguidance(weak, scale=2.0)(good, [])(x, level) < good(x, level) < weak(x, level))
        True
    """

    weak: Denoise | None
    scale: float = 2.0
    output: OutputMap = KEEP
    step: int | None = None

    reads = ()
    compares_absent = False
    keeps_variance = False

    def __post_init__(self) -> None:
        check_scale(self.scale)
        if self.weak is None:
            raise BadValue(
                "weak", None, "must name a finished fit of the same data (`fit` in its result.json), or be self"
            )

    def __call__(self, denoise: Denoise, levels: Sequence[Level]) -> Denoise:
        weak = self.weak
        assert weak is not None

        def guided(x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
            good = denoise(x, level, condition)
            if self.scale == 1:
                return self.output(good)
            return self.output(weak(x, level, condition).lerp(good, self.scale))

        return guided
