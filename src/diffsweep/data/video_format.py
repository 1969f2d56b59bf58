"""From an animated picture, or from pictures of its frames, to a video: uint8 (C, T, H, W)."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from diffsweep.data.decode import BrokenPictureError, PictureFormat

if TYPE_CHECKING:
    import numpy as np

# More frames than that are no example of a dataset.
MOST_FRAMES = 4096


@dataclass(frozen=True)
class VideoFormat:
    """What every video of a dataset becomes.

    A frame that lasts k times as long as the shortest of those that are looked at counts k times: writers of animations
    make one frame of several that are equal.

    Attributes:
        picture: what every frame becomes.
        frames: how many are taken, from the first on; None for all that there are.
        stride: every so many-th frame is taken, >= 1.
    """

    picture: PictureFormat
    frames: int | None
    stride: int = 1

    def decode(self, content: bytes | Sequence[bytes]) -> np.ndarray:
        """The video of one animated file (GIF, WebP, APNG), or of the files of its frames in their order.

        Raises:
            BrokenPictureError: for what cannot be read, does not move, or has too few frames.
        """
        import numpy as np

        # A frame that lasts longer may be several, so that fewer may be enough.
        most = MOST_FRAMES + 1 if self.frames is None else (self.frames - 1) * self.stride + 1
        given = _frames(content) if isinstance(content, bytes) else ((frame, 0.0) for frame in content)
        decoded = [(self.picture.decode(frame), duration) for frame, duration in islice(given, most)]
        repeats = _repeats([duration for _, duration in decoded])
        repeated = [frame for (frame, _), times in zip(decoded, repeats, strict=True) for _ in range(times)]
        found = repeated[:: self.stride][: self.frames]
        if len(found) > MOST_FRAMES:
            raise BrokenPictureError(f"more than {MOST_FRAMES:,} frames: take fewer with dataset.frames")
        wanted = 2 if self.frames is None else self.frames
        if len(found) < wanted:
            step = f" at dataset.stride={self.stride}" if self.stride > 1 else ""
            raise BrokenPictureError(f"{len(found)} frame{'s' * (len(found) != 1)}{step}, fewer than {wanted}")
        if len({frame.shape for frame in found}) > 1:
            raise BrokenPictureError("frames of different sizes")
        return np.stack(found, axis=1)


def frame_count(content: bytes) -> int:
    """How many frames an animated file has, as `VideoFormat` counts them. Raises BrokenPictureError."""
    return sum(_repeats([duration for _, duration in _frames(content)]))


def _repeats(durations: Sequence[float]) -> list[int]:
    """How often each frame counts, by how long it lasts, in ms, 0 where that is not known."""
    step = min((duration for duration in durations if duration > 0), default=math.inf)
    return [max(1, round(duration / step)) for duration in durations]


def is_animated(content: bytes) -> bool:
    """Whether a picture's file has several frames; False for what is no picture."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as picture:
            return getattr(picture, "n_frames", 1) > 1
    except Exception:
        return False


def _frames(content: bytes) -> Iterator[tuple[np.ndarray, float]]:
    """The frames of an animated picture as they are seen, (H, W, 3 or 4), and how long each lasts, in ms."""
    import numpy as np
    from PIL import Image, ImageSequence

    if not content:
        raise BrokenPictureError("empty file")
    try:
        with warnings.catch_warnings():
            # A small file that would unpack into gigabytes.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as picture:
                for frame in ImageSequence.Iterator(picture):
                    opaque = frame.mode not in ("RGBA", "LA", "PA") and "transparency" not in frame.info
                    pixels = np.asarray(frame.convert("RGB" if opaque else "RGBA"))
                    # Some readers know it only now.
                    yield pixels, float(frame.info.get("duration") or 0)
    except GeneratorExit:
        raise
    except Image.UnidentifiedImageError as error:
        raise BrokenPictureError("no picture") from error
    except Exception as error:
        # Whatever is broken in a file, Pillow's readers say so with exceptions of many kinds.
        raise BrokenPictureError(" ".join(str(error).split()) or type(error).__name__) from error
