"""Data stay uint8 in memory; float exists only between `encode` and `decode`, so quantisation happens once."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffsweep.data.modality import IMAGES, POINTS, Modality
from diffsweep.mistakes import BadValue, above
from diffsweep.settings import Split


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled data of one split.

    Attributes:
        x: uint8 images (N, C, H, W) in 0..255, or float32 points (N, D).
        labels: int64 classes (N,).

    Raises:
        ValueError: when `x` is neither of the two, or the labels do not match it.
    """

    x: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        kind = (self.x.dtype, self.x.ndim)
        if kind not in ((torch.uint8, 4), (torch.float32, 2)):
            raise ValueError(
                f"examples must be uint8 (N, C, H, W) or float32 (N, D), not {self.x.dtype} {tuple(self.x.shape)}"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.x.shape[:1]:
            raise ValueError(
                f"labels must be int64 ({len(self.x)},), not {self.labels.dtype} {tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.x)

    def digest(self) -> str:
        """SHA-256 (hex) over bytes, shape and dtype of images and labels: the identity of the data."""
        sha = hashlib.sha256()
        for tensor in (self.x, self.labels):
            sha.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            sha.update(tensor.cpu().contiguous().numpy().data.cast("B") if tensor.numel() else b"")
        return sha.hexdigest()

    def take(self, indices: Tensor) -> "Examples":
        """The examples at `indices` (int64 (M,)), in that order."""
        return Examples(self.x[indices], self.labels[indices])


def encode(x: Tensor) -> Tensor:
    """What a network sees: uint8 0..255 becomes float32 x/127.5 - 1 in [-1, 1]; floats pass unchanged."""
    return x.to(torch.float32) / 127.5 - 1 if x.dtype == torch.uint8 else x


def decode(x: Tensor, like: torch.dtype) -> Tensor:
    """The inverse of `encode`: what is saved, shown and scored.

    Args:
        x: floats of any shape; images in about [-1, 1], values outside are clamped.
        like: dtype of the data: `torch.uint8` for images, a float dtype for points (which pass unchanged).

    Returns:
        uint8, rounded to nearest and clamped to 0..255, or `x` itself for points.

    Raises:
        ValueError: for NaN or infinite values (with their number), or another `like`.
    """
    broken = int((~torch.isfinite(x)).sum())
    if broken:
        raise ValueError(f"cannot decode {broken} of {x.numel()} values: they are NaN or infinite")
    if like == torch.uint8:
        return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    if not like.is_floating_point:
        raise ValueError(f"cannot decode to {like}: choose torch.uint8 (images) or a float dtype (points)")
    return x


class Dataset(ABC):
    """Where examples come from.

    Attributes:
        name: short name, as in `dataset=NAME`.
        shape: of one example as a network sees it, without N: (C, H, W) or (D,).
        stored: its shape as stored; the same, unless `encode` changes it.
        modality: the kind of the stored data; a dataset whose `stored` shape does not tell it states its own.
        encode: from stored examples (N, *stored) to what a network sees, float (N, *shape).
        decode: its inverse, given also the dtype of the stored data.
        classes: number of labels, 0..classes-1.
        sigma_data: root mean square of the encoded training data, the data scale that preconditioning needs
            ("Elucidating the Design Space of Diffusion-Based Generative Models", arXiv 2206.00364, table 1).
    """

    name: ClassVar[str]

    def __init__(self, shape: tuple[int, ...], classes: int, sigma_data: float) -> None:
        self.shape = self.stored = tuple(int(size) for size in shape)
        self.modality: Modality = IMAGES if len(self.stored) == 3 else POINTS
        # Values, not methods: a dataset that wraps another may put its own in their place.
        self.encode: Callable[[Tensor], Tensor] = encode
        self.decode: Callable[[Tensor, torch.dtype], Tensor] = decode
        self.classes = int(classes)
        self.sigma_data = float(above("sigma_data", sigma_data))

    @abstractmethod
    def load(self, split: Split) -> Examples:
        """All examples of one split, in memory, in an order that never changes.

        Raises:
            ValueError: when `split` is neither train nor test, or the data cannot be had.
        """


def check_labels(labels: Tensor, classes: int, name: str) -> None:
    """Refuse labels that a model cannot be given: `classes` itself means "no label" to it.

    Args:
        labels: int64 (N,).
        classes: number of labels; 0 for data whose labels mean nothing.
        name: of the data, for the message.

    Raises:
        ValueError: naming the least and the greatest label, unless all are in 0..classes-1.
    """
    if not classes or not len(labels):
        return
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= classes:
        raise ValueError(
            f"the labels of {name} go from {least} to {most}, but dataset.classes={classes} allows 0 to {classes - 1}: "
            "number them from 0, or correct dataset.classes"
        )


def fixed(dataset: str, key: str, given: object, only: object) -> None:
    """Refuse a figure that a real dataset cannot change.

    Raises:
        ValueError: when `given` is not `only`.
    """
    if given != only:
        raise BadValue(key, given, f"does not fit {dataset}, whose {key} is {only}")


def known_split(split: str) -> None:
    """Refuse a split that does not exist.

    Raises:
        ValueError: unless `split` is train or test.
    """
    if split not in ("train", "test"):
        raise ValueError(f"there is no split {split!r}: choose train or test")
