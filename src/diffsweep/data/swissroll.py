"""A swiss roll seen from the side: one arm that winds outwards, x = angle (cos angle, sin angle), angle uniform."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from diffsweep.data.plane import Plane, part

# From three quarters of a turn to two and a quarter: the roll of scikit-learn's `make_swiss_roll`.
INNER, OUTER = 1.5 * math.pi, 4.5 * math.pi


class SwissRoll(Plane):
    """The roll cut into `classes` pieces of equal probability, from the inside out; the label is the piece.

    Args:
        classes: number of pieces.
        std, size, seed, shape, sigma_data: see `Plane`.

    Raises:
        ValueError: for figures out of range; see `Plane`.
    """

    name: ClassVar[str] = "swissroll"

    def __init__(
        self,
        classes: int = 3,
        std: float = 0.05,
        size: int = 10_000,
        seed: int = 0,
        shape: tuple[int, ...] = (2,),
        sigma_data: float = 1.001,
    ) -> None:
        super().__init__(classes, std, size, seed, shape, sigma_data)

    def clean(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The roll; see `Plane.clean`."""
        angle = INNER + (OUTER - INNER) * u[:, 0]
        scale = math.sqrt(6 / (INNER**2 + INNER * OUTER + OUTER**2))
        return scale * angle[:, None] * torch.stack((angle.cos(), angle.sin()), 1), part(u[:, 0], self.classes)[0]
