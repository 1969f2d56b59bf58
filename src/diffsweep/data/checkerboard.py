"""A checkerboard: uniform on every other square, a density with edges that no Gaussian can have."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from diffsweep.data.examples import fixed
from diffsweep.data.plane import Plane, part
from diffsweep.mistakes import BadValue, whole


class Checkerboard(Plane):
    """The filled squares of a board of `cells` x `cells`; the label is the square, column by column.

    Args:
        cells: squares along a side, even and >= 2.
        classes: cells^2 / 2, nothing else.
        std: of the noise, per coordinate; 0 keeps the edges sharp.
        size, seed, shape, sigma_data: see `Plane`.

    Raises:
        ValueError: for figures out of range; see `Plane`.
    """

    name: ClassVar[str] = "checkerboard"

    def __init__(
        self,
        cells: int = 4,
        classes: int = 8,
        std: float = 0.0,
        size: int = 10_000,
        seed: int = 0,
        shape: tuple[int, ...] = (2,),
        sigma_data: float = 1.0,
    ) -> None:
        super().__init__(classes, std, size, seed, shape, sigma_data)
        if whole("cells", cells, 2) % 2:
            raise BadValue("cells", cells, "must be even")
        fixed(f"a board of {cells} x {cells}", "classes", self.classes, cells**2 // 2)
        self.cells = int(cells)

    def clean(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The squares; see `Plane.clean`."""
        column, _ = part(u[:, 0], self.cells)
        pair, along = part(u[:, 1], self.cells // 2)
        row = 2 * pair + column % 2
        place = torch.stack((u[:, 0], (row + along) / self.cells), 1)
        return math.sqrt(3) * (2 * place - 1), column * (self.cells // 2) + pair
