"""The kinds of data that a dataset can hold: how examples are stored, what a network sees of them, how they are shown.

A dataset states its kind; nothing is guessed from the rank or the type of a tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsweep.data.spectrogram import spectrogram

# Between the frames of a filmstrip: one column, of a grey that is seen beside black and white.
SEAM, _GREY = 1, 128


@dataclass(frozen=True)
class Modality:
    """A kind of data.

    Attributes:
        name: as messages call the examples, in the plural.
        dtype: of stored examples.
        bits: of each stored value, if those are whole numbers; None for real numbers.
        axes: what the axes of one stored example mean; their number is that of its sizes.
        encode: from stored examples (N, ...) to what a network sees, floats of about unit scale.
        decode: the inverse of `encode`: rounded once, values outside of the range of `dtype` are clamped.
        picture: from stored examples to one picture of each, uint8 (N, 1 or 3, height, width); None for points, which
            are shown all together as a cloud.
        frames: how many frames of equal width lie side by side in such a picture, with `SEAM` columns between; 1 for
            what does not move.
        channels: numbers of channels that there may be; empty for any.
        sample_rate: of sounds, in samples a second; None for what is not heard.
    """

    name: str
    dtype: torch.dtype
    bits: int | None
    axes: tuple[str, ...]
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    picture: Callable[[Tensor], Tensor] | None
    frames: Callable[[tuple[int, ...]], int] = lambda shape: 1
    channels: tuple[int, ...] = ()
    sample_rate: int | None = None

    @property
    def mirrors(self) -> bool:
        """Whether examples have a left and a right, so that they can be mirrored: their last axis is the width."""
        return self.axes[-1] == "width"

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse the shape of one stored example that this kind cannot have.

        Raises:
            ValueError: naming what it must be.
        """
        axes = ", ".join(self.axes)
        if len(shape) != len(self.axes) or min(shape) < 1:
            raise ValueError(f"{self.name} have the shape ({axes}), not {tuple(shape)}")
        if self.channels and shape[0] not in self.channels:
            known = " or ".join(map(str, self.channels))
            raise ValueError(f"{self.name} have {known} channels, not {shape[0]}: their shape is ({axes})")


def from_bytes(x: Tensor) -> Tensor:
    """uint8 0..255 as float32 x / 127.5 - 1 in [-1, 1]."""
    return x.to(torch.float32) / 127.5 - 1


def to_bytes(x: Tensor) -> Tensor:
    """The inverse of `from_bytes`: rounded to nearest and clamped to 0..255; errors as `finite`."""
    return ((finite(x).float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_int16(x: Tensor) -> Tensor:
    """int16 as float32 x / 32768 in [-1, 1): silence is 0."""
    return x.to(torch.float32) / 32768


def to_int16(x: Tensor) -> Tensor:
    """The inverse of `from_int16`: rounded to nearest and clamped; errors as `finite`."""
    return (finite(x).float() * 32768).round().clamp(-32768, 32767).to(torch.int16)


def finite(x: Tensor) -> Tensor:
    """`x` itself.

    Raises:
        ValueError: for NaN or infinite values, with their number.
    """
    broken = int((~torch.isfinite(x)).sum())
    if broken:
        raise ValueError(f"cannot decode {broken} of {x.numel()} values: they are NaN or infinite")
    return x


def _unchanged(x: Tensor) -> Tensor:
    return x


def _image(x: Tensor) -> Tensor:
    """Images (N, C, H, W) as they are shown: opacity, a fourth channel, lets white through."""
    if x.shape[1] == 4:
        opacity = x[:, 3:].to(torch.int32)
        x = ((x[:, :3] * opacity + 255 * (255 - opacity) + 127) // 255).to(torch.uint8)
    return x if x.shape[1] in (1, 3) else x[:, :1]


def _filmstrip(x: Tensor) -> Tensor:
    """Frames (N, C, T, H, W) side by side, uint8 (N, 1 or 3, H, T * (W + SEAM) - SEAM)."""
    n, _, count, height, width = x.shape
    frames = _image(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (n, count))
    strip = torch.full((n, frames.shape[2], height, count, width + SEAM), _GREY, dtype=torch.uint8, device=x.device)
    strip[..., :width] = frames.permute(0, 2, 3, 1, 4)
    return strip.flatten(3)[..., :-SEAM]


def _latent(x: Tensor) -> Tensor:
    """The first three channels of latents of unit variance, or the first: from -3 as black to 3."""
    shown = x[:, : 3 if x.shape[1] >= 3 else 1]
    return (shown.float().clamp(-3, 3) * 42.5 + 127.5).round().to(torch.uint8)


def cut_frames(pictures: Tensor, count: int) -> Tensor:
    """The frames of filmstrips, uint8 (N, T, C, H, W), from pictures with `count` frames each."""
    n, channels, height, whole = pictures.shape
    width = (whole + SEAM) // count - SEAM
    padded = torch.nn.functional.pad(pictures, (0, SEAM))
    cut = padded.view(n, channels, height, count, width + SEAM)[..., :width]
    return cut.permute(0, 3, 1, 2, 4)


IMAGES = Modality(
    "images", torch.uint8, 8, ("channel", "height", "width"), from_bytes, to_bytes, _image, channels=(1, 3, 4)
)
VIDEOS = Modality(
    "videos",
    torch.uint8,
    8,
    ("channel", "time", "height", "width"),
    from_bytes,
    to_bytes,
    _filmstrip,
    frames=lambda shape: shape[1],
    channels=(1, 3, 4),
)
# Their slices are looked at as the frames of a video are.
VOLUMES = Modality(
    "volumes",
    torch.uint8,
    8,
    ("channel", "depth", "height", "width"),
    from_bytes,
    to_bytes,
    _filmstrip,
    frames=lambda shape: shape[1],
)
# What an autoencoder makes of images, scaled to zero mean and unit variance: no pixels, and hardly to be looked at.
LATENTS = Modality("latents", torch.float32, None, ("channel", "height", "width"), _unchanged, finite, _latent)
POINTS = Modality("points", torch.float32, None, ("coordinate",), _unchanged, finite, None)


def sounds(sample_rate: int) -> Modality:
    """Sounds of so many samples a second, 16 bits each: (channel, time), one channel or two."""
    return Modality(
        "sounds",
        torch.int16,
        16,
        ("channel", "time"),
        from_int16,
        to_int16,
        spectrogram,
        channels=(1, 2),
        sample_rate=sample_rate,
    )
