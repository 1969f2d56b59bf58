"""Analog bits: each channel of a uint8 image becomes eight channels, its bits as -1 or +1, the highest bit first.

What a network draws is read back by sign, so every sample is an exact uint8 image.
"""

import torch
from torch import Tensor

from diffsweep.data.examples import Dataset, Split, fixed
from diffsweep.data.modality import IMAGES, finite
from diffsweep.data.source import Source
from diffsweep.mistakes import BadValue

PLACES = (128, 64, 32, 16, 8, 4, 2, 1)


def to_bits(x: Tensor) -> Tensor:
    """uint8 (N, C, H, W) as float32 (N, 8C, H, W) of -1 and +1: channel c's bits are channels 8c to 8c + 7."""
    places = torch.tensor(PLACES, dtype=torch.uint8, device=x.device).view(8, 1, 1)
    return ((x.unsqueeze(2) & places) > 0).flatten(1, 2).to(torch.float32) * 2 - 1


def from_bits(x: Tensor) -> Tensor:
    """The inverse of `to_bits`, by sign: uint8 (N, C, H, W) of floats (N, 8C, H, W).

    Raises:
        ValueError: for NaN or infinite values.
    """
    signs = finite(x).unflatten(1, (-1, 8)) > 0
    places = torch.tensor(PLACES, dtype=torch.uint8, device=x.device).view(8, 1, 1)
    return (signs * places).sum(2, dtype=torch.uint8)


class AnalogBits(Dataset):
    """Images of another dataset, which a network sees as bits; they stay stored, shown and scored as they are.

    Analog Bits: Generating Discrete Data using Diffusion Models with Self-Conditioning (arXiv 2208.04202, section 2).

    Args:
        inner: a dataset of uint8 images (C, H, W).
        shape: (8C, H, W), nothing else.
        classes: those of `inner`, nothing else.
        sigma_data: 1, the root mean square of bits.

    Raises:
        ValueError: for a dataset of points, or figures that do not fit it.
    """

    def __init__(self, inner: Dataset, shape: tuple[int, ...], classes: int, sigma_data: float = 1.0) -> None:
        super().__init__(shape, classes, sigma_data, IMAGES)
        if inner.modality != IMAGES:
            raise BadValue("inner", inner.name, f"holds {inner.modality.name} {inner.stored}: analog bits need images")
        # No class variable here: it is called after its images.
        self.name = f"{inner.name}_bits"  # pyright: ignore[reportAttributeAccessIssue]
        channels, *size = inner.stored
        fixed(self.name, "shape", self.shape, (8 * channels, *size))
        fixed(self.name, "classes", self.classes, inner.classes)
        fixed(self.name, "sigma_data", self.sigma_data, 1.0)
        self.inner, self.only_labels = inner, inner.only_labels
        self.stored, self.modality = inner.stored, inner.modality
        self.encode, self.decode = to_bits, from_bits

    def load(self, split: Split) -> Source:
        """The images of `inner`; see `Dataset.load`."""
        return self.inner.load(split)
