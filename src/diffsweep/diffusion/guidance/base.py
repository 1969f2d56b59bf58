"""Guidance turns a denoiser into one that aims elsewhere: x0 moves along a difference of two answers.

    x0 = x0_without + scale (x0_with - x0_without)

In x0, eps, v or score the same scale means the same, since at one (x, level) they are linear in each other.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.level import CLEAN, Level
from diffsweep.mistakes import BadValue


class Guidance(Protocol):
    """A denoiser from a denoiser, for sampling: its levels are floats.

    Attributes:
        reads: names of the entries of a condition that it looks at itself, whether the model is told them or not.
        compares_absent: whether it calls the model without its condition too, so that it must be trained for that.
        keeps_variance: whether a learned variance of the model still holds, which it does if the mean is not moved.
    """

    @property
    def reads(self) -> Collection[str]: ...

    @property
    def compares_absent(self) -> bool: ...

    @property
    def keeps_variance(self) -> bool: ...

    def __call__(self, denoise: Denoise, levels: Sequence[Level]) -> Denoise:
        """The guided denoiser; ``levels`` are those that the sampler visits, noisiest first, the last one clean."""
        ...


def both(denoise: Denoise, x: Tensor, level: Level, condition: Condition | None) -> tuple[Tensor, Tensor]:
    """(x0 with the condition, x0 with its opposite), in one call of 2N rows.

    Args:
        denoise: Trained with and without the condition.
        x: (N, ...).
        level: Of floats.
        condition: Of N examples.

    Raises:
        ValueError: without a condition.
    """
    given = required(condition)
    with_, without = denoise(torch.cat([x, x]), level, Condition.cat([given, given.opposite()])).chunk(2)
    return with_, without


def required(condition: Condition | None) -> Condition:
    """The condition, which must be there.

    Raises:
        ValueError: if it is None.
    """
    if condition is None:
        raise ValueError("this guidance needs a condition: pass condition=Condition.of(label=labels) to the sampler")
    return condition


def check_scale(scale: float, name: str = "scale", most: float = math.inf) -> None:
    """Refuse a number that is not finite, negative or above ``most``.

    Raises:
        ValueError: with the number and its range.
    """
    if not isinstance(scale, (int, float)) or not 0 <= scale <= most or math.isinf(scale):
        limit = "0 or more" if math.isinf(most) else f"between 0 and {most:g}"
        raise BadValue(name, scale, f"must be {limit}")


def following(t: Level, levels: Sequence[Level]) -> Level:
    """The level to which a step from t leads: the next cleaner one of ``levels``, clean data if there is none."""
    # A level that differs by rounding is the same. Noise may be infinite, so cross-multiplied.
    cleaner = [s for s in levels if s.sigma * t.alpha < t.sigma * s.alpha * (1 - 1e-9)]
    return max(cleaner, key=lambda s: s.noise, default=CLEAN)


def gain(t: Level, s: Level) -> float:
    """How far x_s moves per unit of x0 aimed at from t, ``alpha_s - alpha_t sigma_s / sigma_t``.

    So a method that displaces x_s by d after a step moves its aim by d / gain.
    """
    return s.alpha - t.alpha * s.sigma / t.sigma
