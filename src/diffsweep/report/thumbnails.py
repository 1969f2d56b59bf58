"""The first samples of a cell as one small picture: the same place is the same starting noise in every cell."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

# The text chunk in which a grid tells where its images lie.
GEOMETRY = "diffsweep grid"


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
            told = getattr(opened, "text", {}).get(GEOMETRY)
            picture = opened.convert("L" if opened.mode == "L" else "RGB")
    except (OSError, ValueError, SyntaxError):
        return None
    if told is None:
        picture.thumbnail((300, 300))
        return {"src": _uri(picture, lossless=False), "images": 0, "width": picture.width, "height": picture.height}
    try:
        known = {key: int(value) for key, value in json.loads(told).items()}
        width, height, factor = known["width"], known["height"], known["factor"]
        columns, gap, count = known["columns"], known["gap"], min(count, known["count"])
        # Nearest of the enlarged pixels: each is one of the original.
        small = picture.resize((picture.width // factor, picture.height // factor), Image.Resampling.NEAREST)
        row = Image.new(picture.mode, (count * width, height))
        for i in range(count):
            left, top = (i % columns) * (width + gap), (i // columns) * (height + gap)
            row.paste(small.crop((left, top, left + width, top + height)), (i * width, 0))
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        return None
    return {"src": _uri(row, lossless), "images": count, "width": width, "height": height}


def _uri(picture: Any, lossless: bool) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "webp", lossless=lossless, quality=80, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
