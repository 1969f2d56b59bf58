"""Shapes in the plane: a clean point from two uniforms, plus Gaussian noise, so that p(x) is known by construction.

Every shape is scaled to mean square 1 per coordinate, hence sigma_data = sqrt(1 + std^2). The uniforms are raw PCG64
words, which unlike NumPy's distributions are the same in every version.
"""

import math
from abc import abstractmethod
from typing import final

import numpy as np
import torch
from torch import Tensor

from diffsweep.data.examples import Dataset, Examples, Split, fixed, known_split
from diffsweep.data.modality import POINTS
from diffsweep.mistakes import BadValue, at_least, whole


class Plane(Dataset):
    """Points (2,) around a shape; a subclass states the shape.

    Args:
        classes: number of labels, >= 1.
        std: of the noise, per coordinate, >= 0.
        size: number of points in each split.
        seed: of the draw; train and test are independent.
        shape: (2,), nothing else.
        sigma_data: root mean square of a coordinate, sqrt(1 + std^2).

    Raises:
        ValueError: for figures out of range, or a `sigma_data` more than 10 % off that formula.
    """

    only_labels = True

    def __init__(
        self, classes: int, std: float, size: int, seed: int, shape: tuple[int, ...], sigma_data: float
    ) -> None:
        super().__init__(shape, classes, sigma_data, POINTS)
        fixed(self.name, "shape", self.shape, (2,))
        at_least("std", std)
        for key, value, least in (("classes", classes, 1), ("size", size, 1), ("seed", seed, 0)):
            whole(key, value, least)
        exact = math.sqrt(1 + std**2)
        if abs(self.sigma_data / exact - 1) > 0.1:
            raise BadValue("sigma_data", sigma_data, f"does not fit std {std}: {exact:.4g}")
        self.std, self.size, self.seed = float(std), int(size), int(seed)

    @abstractmethod
    def clean(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The shape: float64 points (N, 2) of mean square 1 per coordinate, and labels int64 (N,).

        Args:
            u: independent uniforms in (0, 1), float64 (N, 2).
        """

    @final
    def load(self, split: Split) -> Examples:
        """The split as float32 (size, 2); see `Dataset.load`."""
        known_split(split)
        words = np.random.PCG64([self.seed, ("train", "test").index(split)]).random_raw(4 * self.size)
        u = torch.from_numpy(((words >> np.uint64(11)) + 0.5) * 2.0**-53).view(self.size, 4)
        points, labels = self.clean(u[:, :2])
        noisy = points + self.std * torch.special.ndtri(u[:, 2:])
        return Examples(noisy.to(torch.float32), labels)


def part(u: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Which of `count` equal parts of (0, 1) each uniform falls into, int64, and where in it: a new uniform."""
    scaled = u * count
    which = scaled.long().clamp(max=count - 1)
    return which, scaled - which
