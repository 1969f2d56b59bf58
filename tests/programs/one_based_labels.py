"""A user's own dataset whose ten labels are numbered from 1."""

from __future__ import annotations

import torch

from diffsweep.data.examples import Dataset, Examples, Split


class OneBased(Dataset):
    """Points with labels 1 to 10."""

    name = "one_based"

    def __init__(self, shape: tuple[int, ...] = (2,), classes: int = 10, sigma_data: float = 1.0) -> None:
        super().__init__(shape, classes, sigma_data)

    def load(self, split: Split) -> Examples:
        """A hundred points."""
        x = torch.randn(100, 2, generator=torch.Generator().manual_seed(int(split == "test")))
        return Examples(x, torch.arange(100) % 10 + 1)
