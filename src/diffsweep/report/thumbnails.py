"""The first samples of a cell as one small picture: the same place is the same starting noise in every cell.

Videos move in it; their frames are cut out of the filmstrips of the grid. Sounds, shown by their spectrograms, can
be heard beside it.
"""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffsweep.grid_geometry import GridGeometry

# Milliseconds that a frame of a video is shown.
FRAME = 120


def strip(path: Path, count: int, lossless: bool = True, order: Sequence[int] | None = None) -> dict[str, Any] | None:
    """The first `count` images of a grid, side by side, each pixel once; or a whole picture, made small.

    Args:
        path: a cell's samples.png.
        count: how many, >= 1.
        lossless: whether every pixel is kept as it is; else the picture takes about a third.
        order: numbers of the images as they are to lie; None for 0, 1, 2 ...

    Returns:
        src (a data URI), images (how many lie side by side; 0 for a picture that is no grid), width and height of one
        in pixels; of videos also still (a data URI of the first frames). None if there is no picture, or none that can
        be read.
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
    numbers = [number for number in (order or range(count)) if number < geometry.count][:count]
    count = len(numbers)
    try:
        # Nearest of the enlarged pixels: each is one of the original.
        size = picture.width // geometry.factor, picture.height // geometry.factor
        small = picture.resize(size, Image.Resampling.NEAREST)
        wide = geometry.frame_width
        rows = [Image.new(picture.mode, (count * wide, height)) for _ in range(geometry.frames)]
        for i, number in enumerate(numbers):
            left, top = (number % columns) * (width + gap), (number // columns) * (height + gap)
            for frame, row in enumerate(rows):
                start = left + frame * (wide + 1)
                row.paste(small.crop((start, top, start + wide, top + height)), (i * wide, 0))
    except (ValueError, MemoryError):
        return None
    found = {"src": _uri(rows[0], lossless), "images": count, "width": wide, "height": height}
    if len(rows) > 1:
        moving = {"save_all": True, "append_images": rows[1:], "duration": FRAME, "loop": 0}
        found |= {"still": found["src"], "src": _uri(rows[0], lossless, moving)}
    return found


def sound(path: Path, most: int) -> str | None:
    """The beginning of a WAV file as a data URI of about `most` bytes at most; None if there is none that can be read.

    Args:
        path: a cell's samples.wav.
        most: that the page has room for.
    """
    buffer = io.BytesIO()
    try:
        with wave.open(str(path), "rb") as read, wave.open(buffer, "wb") as cut:
            cut.setparams(read.getparams())
            # Base64 makes four of three.
            room = most * 3 // 4 // (read.getnchannels() * read.getsampwidth())
            cut.writeframes(read.readframes(min(read.getnframes(), room)))
    except (OSError, EOFError, wave.Error):
        return None
    return f"data:audio/wav;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _uri(picture: Any, lossless: bool, more: dict[str, Any] | None = None) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "webp", lossless=lossless, quality=80, method=4, **(more or {}))
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
