"""How the first samples of a cell come about, as one small animation: a column is a starting noise, as in its strip.

Above: the state before each step. Below: the x0 at which the step aims. The last frame has the samples in both.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# Evenly over the steps.
FRAMES = 20

# Milliseconds that all frames but the last are shown, and the last one.
_WAY, _LAST = 2000, 1500

# Up to so many pixels each is kept as it is; of more the eye misses none.
_LOSSLESS = 4 * 16 * 16

# Pixels each way of a picture of points.
_PLANE = 96

# Between images, in pixels; its grey is seen by day and by night.
GAP, _GREY = 1, 128


def motion(frames: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """An animated WebP of `frames`, and a picture of how it ends.

    Args:
        frames: states and aims, each uint8 (N, C, H, W) with C 1 or 3; several, of which at most `FRAMES` are shown.

    Returns:
        src and still (data URIs), width and height in pixels, tile (the width of one image). Images lie `GAP` apart.
    """
    return _motion(_chosen(frames), lossless=False)


def clouds_motion(frames: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """The same of points, each float (N, 2), which are drawn as one cloud."""
    return _motion(_clouds(_chosen(frames)), lossless=True)


def _chosen(frames: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    last = len(frames) - 1
    return [frames[i] for i in sorted({round(last * i / (FRAMES - 1)) for i in range(FRAMES)})]


def _motion(pairs: Sequence[tuple[np.ndarray, np.ndarray]], lossless: bool) -> dict[str, Any]:
    count, _, height, width = pairs[0][0].shape
    drawn = [_sheet(pair) for pair in pairs]
    lossless = lossless or count * width * height <= _LOSSLESS
    durations = [max(40, _WAY // len(drawn))] * (len(drawn) - 1) + [_LAST]
    more = {"append_images": drawn[1:], "save_all": True, "duration": durations, "loop": 0}
    return {
        "src": _uri(drawn[0], lossless, more),
        "still": _uri(drawn[-1], lossless, {}),
        "width": drawn[0].width,
        "height": drawn[0].height,
        "tile": width,
    }


def _sheet(pair: tuple[np.ndarray, np.ndarray]) -> Any:
    import numpy as np
    from PIL import Image

    count, _, height, width = pair[0].shape
    sheet = np.full((2 * (height + GAP) - GAP, count * (width + GAP) - GAP, 3), _GREY, np.uint8)
    for row, images in enumerate(pair):
        for column, image in enumerate(images):
            top, left = row * (height + GAP), column * (width + GAP)
            sheet[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return Image.fromarray(sheet)


def _clouds(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures of points, all to one scale, which a few points far off do not decide."""
    import numpy as np

    reach = 1.1 * float(np.quantile(np.abs(np.concatenate([*pairs[0], *pairs[-1]])), 0.999)) or 1.0

    def cloud(x: np.ndarray) -> np.ndarray:
        ends = ((-reach, reach), (-reach, reach))
        counts, _, _ = np.histogram2d(-x[:, 1], x[:, 0], bins=_PLANE, range=ends)
        return (255 - np.minimum(255, 90 * counts)).astype(np.uint8)[None, None]

    return [(cloud(above), cloud(below)) for above, below in pairs]


def _uri(picture: Any, lossless: bool, more: dict[str, Any]) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "webp", lossless=lossless, quality=60, method=4, **more)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
