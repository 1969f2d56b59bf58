"""A dataset of the project's own: two concentric rings in the plane."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch

from diffsweep.data.examples import Dataset, Examples


class Rings(Dataset):
    """Points on two rings with Gaussian noise; the label is the ring.

    Args:
        radii: of the rings.
        std: of the noise, per coordinate.
        size: number of points in each split.
        shape: of one example.
        sigma_data: root mean square of a coordinate.
    """

    name: ClassVar[str] = "rings"

    def __init__(self, radii: list[float], std: float, size: int, shape: list[int], sigma_data: float) -> None:
        super().__init__(tuple(shape), len(radii), sigma_data)
        self.radii, self.std, self.size = radii, std, size

    def load(self, split: Literal["train", "test"]) -> Examples:
        """All points of a split: the same whenever it is loaded, and other ones in the other split."""
        generator = torch.Generator().manual_seed(("train", "test").index(split))
        labels = torch.arange(self.size) % len(self.radii)
        angles = 2 * math.pi * torch.rand(self.size, generator=generator)
        clean = torch.tensor(self.radii)[labels, None] * torch.stack((angles.cos(), angles.sin()), 1)
        return Examples(clean + self.std * torch.randn(clean.shape, generator=generator), labels)
