"""Where the images of a grid picture lie, as a text chunk of its PNG: whoever reads the picture can cut them out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

CHUNK = "diffsweep grid"


@dataclass(frozen=True)
class GridGeometry:
    """The layout of a grid of images of one size, row by row; each pixel is enlarged by a whole factor.

    Attributes:
        count: how many images.
        columns: how many lie side by side.
        height: of one image, in pixels of its own.
        width: of one image.
        gap: pixels between images.
        factor: how often each pixel is repeated in both directions, >= 1.
        frames: how many frames of equal width lie side by side in each image, with one column between; 1 for none.
    """

    count: int
    columns: int
    height: int
    width: int
    gap: int
    factor: int
    frames: int = 1

    @property
    def frame_width(self) -> int:
        """Width of one frame; that of the image where nothing moves."""
        return (self.width + 1) // self.frames - 1 if self.frames > 1 else self.width

    def text(self) -> str:
        """What the chunk `CHUNK` holds."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, picture: Any) -> GridGeometry | None:
        """The geometry that an opened picture carries; None if it has no such chunk.

        Raises:
            ValueError: for a chunk that is no geometry.
        """
        text = getattr(picture, "text", {}).get(CHUNK)
        if text is None:
            return None
        try:
            found = json.loads(text)
            # Version 0.1 knew no frames.
            found = {"frames": 1, **found}
            geometry = cls(**{field.name: int(found[field.name]) for field in fields(cls)})
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"the text {CHUNK!r} of the picture is no geometry of a grid") from error
        sizes = (geometry.count, geometry.columns, geometry.height, geometry.frame_width, geometry.factor)
        if min(geometry.frames, *sizes) < 1:
            raise ValueError(f"the text {CHUNK!r} of the picture is no geometry of a grid")
        return geometry
