"""Refuse a choice before any work is done, and say which choice to change."""

from collections.abc import Sequence

from torch import Tensor

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


def built_for(x: Tensor, shape: tuple[int, ...], network: str, examples: str) -> None:
    """Raise ValueError unless each row of `x` has the `shape` that a `network` was built for."""
    if x.shape[1:] != shape:
        raise ValueError(f"this {network} was built for {examples} of shape {shape}, got {tuple(x.shape[1:])}")


def levels(
    sizes: Sequence[int],
    width: int,
    multipliers: Sequence[int],
    attention: Sequence[int],
    patch: int,
    heads: int,
    groups: int,
) -> None:
    """Raise ValueError unless an example can be cut and halved as asked and channels divide into groups and heads."""
    words = " x ".join(map(str, sizes))
    if any(size % patch for size in sizes):
        raise BadValue("patch", patch, f"does not divide examples of shape {words}: choose one that does")
    if not multipliers:
        raise BadValue("multipliers", [], "is empty: give one number per level, such as [1,2]")
    for i, multiplier in enumerate(multipliers):
        whole(f"multipliers[{i}]", multiplier, 1)
    if width % groups:
        raise BadValue("width", width, f"is not a multiple of groups={groups}")
    side = min(sizes) // patch
    if side <= 2 ** (len(multipliers) - 2):
        raise BadValue(
            "multipliers",
            list(multipliers),
            f"halves examples of shape {words} (patch {patch}) {len(multipliers) - 1} times, below one position: give "
            "fewer multipliers",
        )
    for level in attention:
        if isinstance(level, bool) or not isinstance(level, int) or not -len(multipliers) <= level < len(multipliers):
            raise BadValue(
                "attention",
                list(attention),
                f"names level {level!r}, but levels go from 0 to {len(multipliers) - 1} (or -1 for the coarsest)",
            )
        wide = width * multipliers[level]
        if wide % heads:
            raise BadValue("heads", heads, f"does not divide the {wide} channels of level {level}")
