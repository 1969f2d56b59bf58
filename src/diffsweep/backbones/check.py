"""Refuse a choice before any work is done, and say which choice to change."""

from collections.abc import Sequence

from diffsweep.mistakes import whole


def integers(least: int, **values: int) -> None:
    """Raise BadValue unless every value is a whole number, `least` or more."""
    for name, value in values.items():
        whole(name, value, least)


def image(shape: Sequence[int]) -> tuple[int, int, int]:
    """`shape` as (channels, height, width), or a ValueError for points."""
    if len(shape) != 3:
        raise ValueError(
            "backbone=unet takes images (channels, height, width), but the data are points of shape "
            f"{tuple(shape)}: choose backbone=mlp or an image dataset"
        )
    channels, height, width = shape
    return channels, height, width


def points(shape: Sequence[int]) -> int:
    """The number of dimensions of points of `shape`, or a ValueError for images."""
    if len(shape) != 1:
        raise ValueError(
            "backbone=mlp takes points (dimensions,), but the data are images of shape "
            f"{tuple(shape)}: choose backbone=unet or a dataset of points"
        )
    return shape[0]
