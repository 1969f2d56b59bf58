"""The classifiers that come with the package, as judges of denoised images."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from diffsweep.diffusion import Level
from diffsweep.evaluation.classifier import classifier


class Shipped(nn.Module):
    """A classifier of clean images, asked about the denoised x.

    Args:
        name: Of its weights: digits or fashion_mnist, that of the dataset.

    Raises:
        ValueError: if there are no such weights; when the images have another shape.
    """

    def __init__(self, name: str = "digits") -> None:
        super().__init__()
        self.network: Any = classifier(name).network

    def forward(self, x: Tensor, level: Level, x0: Tensor) -> Tensor:
        """Class scores (N, classes) of x0 (N, C, H, W) in [-1, 1]; values beyond are judged as they are."""
        return self.network((x0 + 1) * 127.5)["logits"]
