"""From a picture's file to pixels: uint8 (C, size, size), whatever the file's kind, depth, palette or rotation."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

# Of Pillow's readers. Others are for what is no picture, or start programs, as that of EPS does.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF", "PPM", "JPEG2000", "TGA", "ICO")

Crop = Literal["center", "stretch", "random"]
CROPS: tuple[Crop, ...] = ("center", "stretch", "random")


class BrokenPictureError(ValueError):
    """A picture that cannot be read; the message says why, without its name."""


@dataclass(frozen=True)
class PictureFormat:
    """What every picture of a dataset becomes.

    A rotation that EXIF asks for is done. Transparency is laid over white. 16 bits of grey become 8 by value / 257,
    rounded; of 16 bits of colour Pillow keeps the upper 8. CMYK and palettes become colours. Of an animation the first
    frame counts. Resizing is Pillow's bicubic filter, which is antialiased (G. Parmar et al., "On Aliased Resizing and
    Surprising Subtleties in GAN Evaluation", arXiv 2104.11222).

    Attributes:
        size: pixels a side; None leaves pictures as they are.
        channels: 1 grey, 3 colours, 4 colours and opacity.
        crop: "center" brings the shorter side to `size` and takes the middle; "stretch" changes the aspect ratio;
            "random" takes a square at a random place, and brings it to `size`.
        smallest_crop: least side of a random square, as a share of the shorter side, in (0, 1]; the greatest is all of
            it. 0.8 are the random crops of "Diffusion Models Beat GANs on Image Synthesis", arXiv 2105.05233.
    """

    size: int | None
    channels: Literal[1, 3, 4] = 3
    crop: Crop = "center"
    smallest_crop: float = 0.8

    def decode(self, content: bytes | np.ndarray, seed: int = 0) -> np.ndarray:
        """The pixels, uint8 (channels, H, W), of which `seed` >= 0 chooses a random crop; errors as `read`."""
        return self.cut(self.read(content), seed)

    def read(self, content: bytes | np.ndarray) -> Image:
        """The picture at its own size, in the mode of `channels`.

        Raises:
            BrokenPictureError: for what is no picture, or is cut short, or is far larger than a picture.
        """
        from PIL import Image

        picture = _opened(content)
        has_alpha = picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info
        if self.channels == 4:
            return picture.convert("RGBA")
        if has_alpha:
            above = picture.convert("RGBA")
            white = Image.new("RGBA", above.size, (255, 255, 255, 255))
            picture = Image.alpha_composite(white, above)
        return picture.convert("L" if self.channels == 1 else "RGB")

    def cut(self, picture: Image, seed: int = 0) -> np.ndarray:
        """The pixels of a picture that was read, uint8 (channels, H, W), at their size; `seed` as of `decode`."""
        import numpy as np

        pixels = np.asarray(self._fitted(picture, seed))
        return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))

    def _fitted(self, picture: Image, seed: int) -> Image:
        from PIL import Image

        size = self.size
        if size is None:
            return picture
        if self.crop == "random":
            return picture.resize((size, size), Image.Resampling.BICUBIC, box=self._random_square(picture.size, seed))
        if picture.size == (size, size):
            return picture
        if self.crop == "stretch":
            return picture.resize((size, size), Image.Resampling.BICUBIC)
        width, height = picture.size
        scale = size / min(width, height)
        width, height = max(size, round(width * scale)), max(size, round(height * scale))
        left, top = (width - size) // 2, (height - size) // 2
        return picture.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))

    def _random_square(self, size: tuple[int, int], seed: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of a square of whole pixels in a picture of `size` (width, height)."""
        import numpy as np

        # Raw words are the same in every version of NumPy, and NumPy's distributions are not.
        share, left, top = ((int(word) >> 11) * 2.0**-53 for word in np.random.PCG64(seed).random_raw(3))
        width, height = size
        side = max(1, round(min(size) * (self.smallest_crop + (1 - self.smallest_crop) * share)))
        x, y = int(left * (width - side + 1)), int(top * (height - side + 1))
        return x, y, x + side, y + side


def picture_size(content: bytes | np.ndarray) -> tuple[int, int, str]:
    """Width, height and file format (PNG, JPEG ...; "array") of a picture, without decoding it.

    Raises:
        BrokenPictureError: for what is no picture.
    """
    from PIL import Image

    if not isinstance(content, bytes):
        return content.shape[1], content.shape[0], "array"
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as picture:
            return *picture.size, picture.format or "?"
    except Exception as error:
        raise BrokenPictureError(_reason(error, content)) from error


def _opened(content: bytes | np.ndarray) -> Image:
    """A decoded 8-bit picture, turned as its file asks for."""
    from PIL import Image, ImageOps

    if not isinstance(content, bytes):
        return Image.fromarray(content[..., 0] if content.shape[2] == 1 else content)
    try:
        with warnings.catch_warnings():
            # A small file that would unpack into gigabytes.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(content), formats=_formats())
            picture.load()
            if picture.mode.startswith(("I", "F")):
                picture = _eight_bits(picture)
            return ImageOps.exif_transpose(picture)
    except Exception as error:
        # Whatever is broken in a file, Pillow's readers say so with exceptions of many kinds.
        raise BrokenPictureError(_reason(error, content)) from error


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this installation of Pillow reads."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _eight_bits(picture: Image) -> Image:
    import numpy as np
    from PIL import Image

    values = np.asarray(picture).astype(np.float64)
    if picture.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known")
    return Image.fromarray(np.rint(values.clip(0, 65535) / 257).astype(np.uint8))


def _reason(error: Exception, content: bytes) -> str:
    from PIL import Image

    if not content:
        return "empty file"
    if isinstance(error, Image.UnidentifiedImageError):
        return "no picture"
    return " ".join(str(error).split()) or type(error).__name__
