"""Two moons: interleaved half circles of radius 1, each the other turned by half a turn about the origin."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from diffsweep.data.examples import fixed
from diffsweep.data.plane import Plane, part


class Moons(Plane):
    """The shape of scikit-learn's `make_moons`, centred and scaled; the label is the moon.

    Args:
        classes: 2, nothing else.
        std, size, seed, shape, sigma_data: see `Plane`.

    Raises:
        ValueError: for figures out of range; see `Plane`.
    """

    name: ClassVar[str] = "moons"

    def __init__(
        self,
        classes: int = 2,
        std: float = 0.08,
        size: int = 10_000,
        seed: int = 0,
        shape: tuple[int, ...] = (2,),
        sigma_data: float = 1.003,
    ) -> None:
        super().__init__(classes, std, size, seed, shape, sigma_data)
        fixed(self.name, "classes", self.classes, 2)

    def clean(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The half circles; see `Plane.clean`."""
        moon, along = part(u[:, 0], 2)
        angle = math.pi * along
        # Centred, the upper moon is (cos - 1/2, sin - 1/4), whose mean square is (21/16 - 1/pi) / 2 a coordinate.
        upper = torch.stack((angle.cos() - 0.5, angle.sin() - 0.25), 1)
        return upper * (1 - 2 * moon[:, None]) / math.sqrt((21 / 16 - 1 / math.pi) / 2), moon
