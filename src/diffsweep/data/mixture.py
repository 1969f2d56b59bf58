"""A ring of Gaussians in the plane: p(x) = sum_k w_k N(x; m_k, s_k^2 I), so E[x0 | x_t] has a closed form."""

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from diffsweep.data.examples import Dataset, Examples, Split, known_split
from diffsweep.data.modality import POINTS
from diffsweep.mistakes import BadValue, above, at_least, whole


class RingOfGaussians(Dataset):
    """Points from `classes` equal Gaussians on a circle; the label is the Gaussian.

    A toy, and an exact one: `means`, `stds` and `weights` are the density itself, so a denoiser can be written down
    and every error measured against the truth.

    Args:
        classes: number of Gaussians.
        radius: of the circle of their means.
        std: of each Gaussian, per coordinate.
        size: number of points in each split.
        seed: of the draw; train and test are independent.
        shape: (2,), nothing else.
        sigma_data: root mean square of a coordinate, sqrt(radius^2 / 2 + std^2).

    Raises:
        ValueError: for figures out of range, or a `sigma_data` more than 10 % off that formula.
    """

    name: ClassVar[str] = "mixture"
    only_labels = True

    def __init__(
        self,
        classes: int = 8,
        radius: float = 1.4,
        std: float = 0.1,
        size: int = 10_000,
        seed: int = 0,
        shape: tuple[int, ...] = (2,),
        sigma_data: float = 0.995,
    ) -> None:
        super().__init__(shape, classes, sigma_data, POINTS)
        at_least("radius", radius)
        for key, value, least in (("classes", classes, 1), ("size", size, 1), ("seed", seed, 0)):
            whole(key, value, least)
        above("std", std)
        if self.shape != (2,):
            raise BadValue("shape", self.shape, "does not fit a ring of Gaussians, whose shape is (2,)")
        exact = math.sqrt(radius**2 / 2 + std**2)
        if abs(self.sigma_data / exact - 1) > 0.1:
            raise BadValue("sigma_data", sigma_data, f"does not fit radius {radius} and std {std}: {exact:.4g}")
        self.radius, self.std, self.size, self.seed = float(radius), float(std), int(size), int(seed)

    @property
    def means(self) -> Tensor:
        """Centres m_k, float64 (classes, 2)."""
        angle = torch.arange(self.classes, dtype=torch.float64) * (2 * math.pi / self.classes)
        return self.radius * torch.stack((angle.cos(), angle.sin()), dim=1)

    @property
    def stds(self) -> Tensor:
        """Standard deviations s_k per coordinate, float64 (classes,)."""
        return torch.full((self.classes,), self.std, dtype=torch.float64)

    @property
    def weights(self) -> Tensor:
        """Probabilities w_k, float64 (classes,); they sum to 1."""
        return torch.full((self.classes,), 1 / self.classes, dtype=torch.float64)

    def load(self, split: Split) -> Examples:
        """The split as float32 (size, 2); see `Dataset.load`."""
        known_split(split)
        draw = np.random.Generator(np.random.PCG64([self.seed, ("train", "test").index(split)]))
        labels = torch.from_numpy(draw.integers(self.classes, size=self.size))
        noise = torch.from_numpy(draw.standard_normal((self.size, 2)))
        x = self.means[labels] + self.stds[labels, None] * noise
        return Examples(x.to(torch.float32), labels)
