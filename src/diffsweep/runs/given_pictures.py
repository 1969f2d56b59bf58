"""Pictures of the user's that samples are made of: read from files, brought to the shape of the data, checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from diffsweep.data.decode import BrokenPictureError, PictureFormat
from diffsweep.data.examples import Dataset
from diffsweep.data.modality import IMAGES
from diffsweep.scoring.editing import Editing
from diffsweep.settings import GivenPictures


def like_pictures(given: GivenPictures, dataset: Dataset) -> Tensor | None:
    """The pictures whose edges, or coarser version, samples are asked for, as stored (M, C, H, W); None for none.

    Raises:
        ValueError: for a file that is no picture, or data that are none.
    """
    return _read_all(given.like, dataset)


def editing(given: GivenPictures, dataset: Dataset) -> Editing:
    """What is done with the other pictures. Raises ValueError as above, and for a mask that paints nothing anew."""
    start, known = _read_all(given.start, dataset), _read_all(given.inpaint, dataset)
    repainted = None
    if given.mask is not None:
        repainted = torch.from_numpy(_pixels(given.mask, (1, *dataset.stored[1:])))[0] >= 128
        if not repainted.any():
            raise ValueError(f"{given.mask} has no white, so that nothing would be painted anew")
    return Editing(start, given.strength, known, repainted)


def _read_all(paths: Sequence[str], dataset: Dataset) -> Tensor | None:
    if not paths:
        return None
    if not dataset.modality == IMAGES:
        raise ValueError(f"pictures are given, and dataset={dataset.name} has none: {dataset.modality.name}")
    return torch.stack([torch.from_numpy(_pixels(path, dataset.stored)) for path in paths])


def _pixels(path: str, shape: Sequence[int]) -> np.ndarray:
    """A picture's pixels, uint8 (channels, height, width)."""
    channels, height, width = shape
    picture_format = PictureFormat(None, cast(Literal[1, 3, 4], channels))
    try:
        picture = picture_format.read(Path(path).read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except BrokenPictureError as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error
    pixels = np.array(_fitted(picture, width, height))
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def _fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The middle of a picture at this size; one whose pixels are to become whole squares is not blurred."""
    if picture.size == (width, height):
        return picture
    across, down = width / picture.width, height / picture.height
    if across == down and across.is_integer():
        return picture.resize((width, height), Image.Resampling.NEAREST)
    return ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC)
