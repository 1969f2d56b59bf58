"""The kinds of data that a dataset can hold: how examples are stored, which decides how they are shown and scored."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Modality:
    """A kind of data.

    Attributes:
        name: as messages call the examples.
        dtype: of stored examples.
        bits: of each stored value, if those are whole numbers; None for real numbers.
    """

    name: str
    dtype: torch.dtype
    bits: int | None


IMAGES = Modality("images", torch.uint8, 8)
POINTS = Modality("points", torch.float32, None)
