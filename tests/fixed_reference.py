"""A reference of given features, and a damage to images, for tests of metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffsweep.evaluation.features import Features
from diffsweep.evaluation.moments import Moments


@dataclass(frozen=True, eq=False)
class Fixed:
    """A reference made of given features."""

    features: Features

    @cached_property
    def of_features(self) -> Moments:
        return Moments.of(self.features["features"])

    def moments(self, output: str = "features") -> Moments:
        assert output == "features"
        return self.of_features

    def keep(self, what: str, compute: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
        return compute()


def noisy(x: Tensor, std: float) -> Tensor:
    """Images, uint8, with Gaussian noise of that standard deviation, in 0..255: the same noise, however strong."""
    draw = torch.Generator().manual_seed(0)
    return (x + std * torch.randn(x.shape, generator=draw)).round().clamp(0, 255).to(torch.uint8)
