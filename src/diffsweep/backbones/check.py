"""Refuse a choice before any work is done, and say which choice to change."""

from collections.abc import Sequence

from diffsweep.mistakes import BadValue, whole


def integers(least: int, **values: int) -> None:
    """Raise BadValue unless every value is a whole number, `least` or more."""
    for name, value in values.items():
        whole(name, value, least)


def divides(name: str, size: int, height: int, width: int) -> None:
    """Raise BadValue unless squares of `size` cut an image of `height` x `width` evenly."""
    if height % size or width % size:
        raise BadValue(name, size, f"does not divide images of {height} x {width}: choose one that does")


def image(shape: Sequence[int], backbone: str) -> tuple[int, int, int]:
    """`shape` as (channels, height, width), or a ValueError for other data that names the `backbone`."""
    if len(shape) != 3:
        raise ValueError(
            f"backbone={backbone} takes images (channels, height, width), but the data are of shape "
            f"{tuple(shape)}: choose backbone=mlp or unet, or an image dataset"
        )
    channels, height, width = shape
    return channels, height, width


def spatial(shape: Sequence[int]) -> tuple[int, ...]:
    """`shape` as (channels, *sizes) with one to three sizes, or a ValueError for points and for what has more."""
    if not 2 <= len(shape) <= 4:
        kind = "points" if len(shape) == 1 else "examples"
        raise ValueError(
            "backbone=unet takes examples (channels, *sizes) with one to three sizes, but the data are "
            f"{kind} of shape {tuple(shape)}: choose backbone=mlp or an image dataset"
        )
    return tuple(shape)


def points(shape: Sequence[int]) -> int:
    """How many numbers a point of `shape` has, or a ValueError for what has channels and positions."""
    if len(shape) != 1:
        raise ValueError(
            "backbone=mlp takes points (dimensions,), but the data are examples of shape "
            f"{tuple(shape)}: choose backbone=unet or a dataset of points"
        )
    return shape[0]
