"""Refuse a choice before any work is done, and say which choice to change."""

from collections.abc import Sequence


def integers(backbone: str, least: int, **values: int) -> None:
    """Raise ValueError unless every value is an integer of at least `least`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"backbone.{name} must be an integer of at least {least}, got {value!r} ({backbone})")


def rate(backbone: str, **values: float) -> None:
    """Raise ValueError unless every value lies in [0, 1)."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"backbone.{name} must be at least 0 and below 1, got {value!r} ({backbone})")


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
