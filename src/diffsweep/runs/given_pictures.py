"""Pictures of the user's that samples are made of: read from files, brought to the shape of the data, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from diffsweep.data.decode import BrokenPictureError, PictureFormat
from diffsweep.mistakes import BadValue

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from diffsweep.data.examples import Dataset
    from diffsweep.scoring.editing import Editing


@dataclass(frozen=True)
class GivenPictures:
    """Paths of pictures, and what is done with them; sample i has to do with picture i, then from the first again.

    Attributes:
        like: whose edges, or coarser version, samples are asked for.
        start: from which samples start, under noise.
        strength: share of the sampler's steps that are taken from there, in (0, 1].
        inpaint: of which a part is kept.
        mask: that says which: what is white in it is painted anew.

    Raises:
        ValueError: for a strength out of range, or one of `inpaint` and `mask` without the other.
    """

    like: Sequence[str] = ()
    start: Sequence[str] = ()
    strength: float = 0.6
    inpaint: Sequence[str] = ()
    mask: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise BadValue("strength", self.strength, "must be above 0 and at most 1 (from pure noise)")
        if self.inpaint and self.mask is None:
            raise ValueError("--inpaint needs a mask: give one as --mask PICTURE, in which white is painted anew")
        if self.mask is not None and not self.inpaint:
            raise ValueError("--mask says what is painted anew of a picture: give that as --inpaint PICTURE")

    def __bool__(self) -> bool:
        return bool(self.like or self.start or self.inpaint)

    def settings(self) -> dict[str, Any]:
        """What is recorded with the samples."""
        found: dict[str, Any] = {"like": list(self.like), "start": list(self.start), "inpaint": list(self.inpaint)}
        return found | {"mask": self.mask, "strength": self.strength if self.start else None}

    def liked(self, dataset: Dataset) -> Tensor | None:
        """The pictures of `like`, as stored (M, C, H, W); None without any. Raises ValueError."""
        return _read_all(self.like, dataset)

    def editing(self, dataset: Dataset) -> Editing:
        """What is done with the others. Raises ValueError for a file that is no picture."""
        import torch

        from diffsweep.scoring.editing import Editing

        repainted = None
        if self.mask is not None:
            pixels = torch.from_numpy(_pixels(self.mask, (1, *dataset.stored[1:])))
            repainted = pixels[0] >= 128
            if not repainted.any():
                raise ValueError(f"{self.mask} has no white, so that nothing would be painted anew")
        start, known = _read_all(self.start, dataset), _read_all(self.inpaint, dataset)
        return Editing(start, self.strength, known, repainted)


NO_PICTURES = GivenPictures()


def _read_all(paths: Sequence[str], dataset: Dataset) -> Tensor | None:
    import torch

    from diffsweep.data.modality import IMAGES

    if not paths:
        return None
    if not dataset.modality == IMAGES:
        raise ValueError(f"pictures are given, and dataset={dataset.name} has none: {dataset.modality.name}")
    return torch.stack([torch.from_numpy(_pixels(path, dataset.stored)) for path in paths])


def _pixels(path: str, shape: Sequence[int]) -> Any:
    """A picture's pixels, uint8 (channels, height, width)."""
    import numpy as np

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


def _fitted(picture: Image, width: int, height: int) -> Image:
    """The middle of a picture at this size; one whose pixels are to become whole squares is not blurred."""
    from PIL import Image, ImageOps

    if picture.size == (width, height):
        return picture
    across, down = width / picture.width, height / picture.height
    if across == down and across.is_integer():
        return picture.resize((width, height), Image.Resampling.NEAREST)
    return ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC)
