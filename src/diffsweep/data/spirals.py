"""Spirals: arms from the centre outwards, radius R sqrt(u), winding in proportion to the radius."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from diffsweep.data.plane import Plane, part
from diffsweep.mistakes import at_least


class Spirals(Plane):
    """`classes` equal arms, each the next turned about the origin; the label is the arm.

    Args:
        classes: number of arms.
        turns: that each arm makes about the centre, >= 0.
        std, size, seed, shape, sigma_data: see `Plane`.

    Raises:
        ValueError: for figures out of range; see `Plane`.
    """

    name: ClassVar[str] = "spirals"

    def __init__(
        self,
        classes: int = 2,
        turns: float = 1.5,
        std: float = 0.04,
        size: int = 10_000,
        seed: int = 0,
        shape: tuple[int, ...] = (2,),
        sigma_data: float = 1.001,
    ) -> None:
        super().__init__(classes, std, size, seed, shape, sigma_data)
        self.turns = float(at_least("turns", turns))

    def clean(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The arms; see `Plane.clean`."""
        arm, along = part(u[:, 0], self.classes)
        radius = along.sqrt()
        angle = 2 * math.pi * (self.turns * radius + arm / self.classes)
        return 2 * radius[:, None] * torch.stack((angle.cos(), angle.sin()), 1), arm
