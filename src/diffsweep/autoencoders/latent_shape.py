"""The shape of latents: pure arithmetic, for configs are composed without torch."""

from __future__ import annotations

from collections.abc import Sequence

from diffsweep.mistakes import BadValue


def latent_shape(shape: Sequence[int], latent_channels: int, channels: Sequence[int]) -> tuple[int, ...]:
    """(channels, height, width) of the latents of images.

    Args:
        shape: (channels, height, width) of the images.
        latent_channels: of the latents.
        channels: of each level of the encoder; each but the last halves height and width.

    Raises:
        ValueError: for images that cannot be halved so often.
    """
    if len(shape) != 3 or not channels:
        raise BadValue("shape", list(shape), "must be (channels, height, width), and channels name one level or more")
    factor = 2 ** (len(channels) - 1)
    _, height, width = shape
    if height % factor or width % factor:
        raise BadValue(
            "channels",
            list(channels),
            f"halve an image {len(channels) - 1} times, and {height} x {width} is no multiple of {factor}: name fewer "
            "levels, or choose another size",
        )
    return latent_channels, height // factor, width // factor
