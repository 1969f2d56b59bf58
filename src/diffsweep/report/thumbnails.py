"""The first samples of a cell as one small picture: the same place is the same starting noise in every cell."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from diffsweep.grid_geometry import GridGeometry


def strip(path: Path, count: int, lossless: bool = True) -> dict[str, Any] | None:
    """The first `count` images of a grid, side by side, each pixel once; or a whole picture, made small.

    Args:
        path: a cell's samples.png.
        count: how many, >= 1.
        lossless: whether every pixel is kept as it is; else the picture takes about a third.

    Returns:
        src (a data URI), images (how many lie side by side; 0 for a picture that is no grid), width and height of one
        in pixels. None if there is no picture, or none that can be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as opened:
            geometry = GridGeometry.of(opened)
            picture = opened.convert("L" if opened.mode == "L" else "RGB")
    except (OSError, ValueError, SyntaxError):
        return None
    if geometry is None:
        picture.thumbnail((300, 300))
        return {"src": _uri(picture, lossless=False), "images": 0, "width": picture.width, "height": picture.height}
    width, height, columns, gap = geometry.width, geometry.height, geometry.columns, geometry.gap
    count = min(count, geometry.count)
    try:
        # Nearest of the enlarged pixels: each is one of the original.
        size = picture.width // geometry.factor, picture.height // geometry.factor
        small = picture.resize(size, Image.Resampling.NEAREST)
        row = Image.new(picture.mode, (count * width, height))
        for i in range(count):
            left, top = (i % columns) * (width + gap), (i // columns) * (height + gap)
            row.paste(small.crop((left, top, left + width, top + height)), (i * width, 0))
    except (ValueError, MemoryError):
        return None
    return {"src": _uri(row, lossless), "images": count, "width": width, "height": height}


def _uri(picture: Any, lossless: bool) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "webp", lossless=lossless, quality=80, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
