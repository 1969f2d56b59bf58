"""Data stay uint8 in memory; float exists only between `encode` and `decode`, so quantisation happens once."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, final

import torch
from torch import Tensor

from diffsweep.data.modality import IMAGES, POINTS, Modality
from diffsweep.data.source import Source
from diffsweep.mistakes import BadValue, above
from diffsweep.settings import Split

# Of one kind, by example: numbers (N, ...), or a text each.
Entry = Tensor | Sequence[str]


@final
class Examples:
    """Examples in memory: a split of a dataset, or some of one. It is itself a `Source`.

    Args:
        x: as stored, N examples: uint8 images (N, C, H, W) in 0..255, float32 points (N, D), and so on.
        labels: int64 classes (N,); None where there are none.
        entries: what else is known of each example, by name, as `caption`.

    Attributes:
        x: as given.
        labels: as given; zeros where there are none.
        entries: everything that is known of the examples, by name; the labels are there as `label`, if there are any.

    Raises:
        ValueError: when `x` is none of uint8, int16 and float32, or anything else does not match it.
    """

    def __init__(self, x: Tensor, labels: Tensor | None = None, entries: Mapping[str, Entry] | None = None) -> None:
        self.x = x
        self.labels = torch.zeros(len(x), dtype=torch.int64, device=x.device) if labels is None else labels
        self.entries: Mapping[str, Entry] = ({} if labels is None else {"label": labels}) | dict(entries or {})
        if x.dtype not in (torch.uint8, torch.int16, torch.float32) or x.ndim < 2:
            raise ValueError(
                "examples must be uint8, int16 or float32, N of them as images (N, C, H, W) or points (N, D), not "
                f"{x.dtype} {tuple(x.shape)}"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != x.shape[:1]:
            raise ValueError(f"labels must be int64 ({len(x)},), not {self.labels.dtype} {tuple(self.labels.shape)}")
        for name, entry in self.entries.items():
            if len(entry) != len(x):
                raise ValueError(f"there must be {len(x)} of the entry {name}, one for each example, not {len(entry)}")

    def __len__(self) -> int:
        return len(self.x)

    def digest(self) -> str:
        """SHA-256 (hex) over bytes, shape and dtype of examples, labels and entries: the identity of the data."""
        sha = hashlib.sha256()
        # Labels that are absent count as zeros, as they did before other entries were known.
        others = sorted(self._others().items(), key=lambda one: one[0])
        for name, entry in [("", self.x), ("", self.labels), *others]:
            sha.update(name.encode())
            if isinstance(entry, Tensor):
                sha.update(f"{entry.dtype}{tuple(entry.shape)}".encode())
                sha.update(entry.cpu().contiguous().numpy().data.cast("B") if entry.numel() else b"")
            else:
                sha.update(json.dumps(list(entry)).encode())
        return sha.hexdigest()

    def take(self, numbers: Tensor) -> Examples:
        """The examples of these numbers, int64 (M,), in that order; see `Source.take`."""
        here = numbers.to(self.x.device)
        taken = {name: _taken(entry, numbers) for name, entry in self._others().items()}
        return Examples(self.x[here], self.labels[here] if "label" in self.entries else None, taken)

    def with_x(self, x: Tensor) -> Examples:
        """The same with other stored data (N, ...), as mirrored images."""
        return Examples(x, self.labels if "label" in self.entries else None, self._others())

    def map(self, change: Callable[[Tensor], Tensor]) -> Examples:
        """The same with all tensors changed alike, as by moving to a device; texts stay where they are."""
        others = {name: change(entry) if isinstance(entry, Tensor) else entry for name, entry in self._others().items()}
        return Examples(change(self.x), change(self.labels) if "label" in self.entries else None, others)

    def _others(self) -> dict[str, Entry]:
        return {name: entry for name, entry in self.entries.items() if name != "label"}


def _taken(entry: Entry, numbers: Tensor) -> Entry:
    if isinstance(entry, Tensor):
        return entry[numbers.to(entry.device)]
    places: list[int] = numbers.tolist()
    return [entry[i] for i in places]


class Dataset(ABC):
    """Where examples come from.

    Attributes:
        name: short name, as in `dataset=NAME`.
        only_labels: whether nothing but a label is known of an example, so that a condition of anything else can be
            refused before the data are read; False if only the data tell.
        shape: of one example as a network sees it, without N: (C, H, W) or (D,).
        stored: its shape as stored; the same, unless `encode` changes it.
        modality: the kind of the stored data.
        encode: from stored examples (N, *stored) to what a network sees, float (N, *shape).
        decode: its inverse.
        classes: number of labels, 0..classes-1.
        sigma_data: root mean square of the encoded training data, the data scale that preconditioning needs
            ("Elucidating the Design Space of Diffusion-Based Generative Models", arXiv 2206.00364, table 1).
    """

    name: ClassVar[str]
    only_labels: bool = False

    def __init__(
        self, shape: tuple[int, ...], classes: int, sigma_data: float, modality: Modality | None = None
    ) -> None:
        self.shape = self.stored = tuple(int(size) for size in shape)
        # A class of version 0.1 states no kind: it had images (C, H, W) or points (D,), nothing else.
        self.modality: Modality = modality or (IMAGES if len(self.stored) == 3 else POINTS)
        # Values, not methods: a dataset that wraps another may put its own in their place.
        self.encode: Callable[[Tensor], Tensor] = self.modality.encode
        self.decode: Callable[[Tensor], Tensor] = self.modality.decode
        self.classes = int(classes)
        self.sigma_data = float(above("sigma_data", sigma_data))

    @abstractmethod
    def load(self, split: Split) -> Source:
        """One split, read by number in an order that never changes: `Examples` in memory, or any `Source`.

        Raises:
            ValueError: when `split` is neither train nor test, or the data cannot be had.
        """


def load_checked(dataset: Dataset, split: Split) -> Source:
    """A split of a dataset, which may be the user's own, with what it says of itself checked by its first example.

    Raises:
        ValueError: naming what is missing, or another than the dataset states; or when the data cannot be had.
    """
    source = dataset.load(split)
    name = f"dataset={dataset.name}, split {split}"
    missing = [member for member in ("__len__", "labels", "take", "digest") if not hasattr(source, member)]
    if missing:
        raise ValueError(
            f"{name}: load gave a {type(source).__name__} without {', '.join(missing)}: give Examples, or what has "
            "__len__, labels, take and digest (docs/data.md)"
        )
    check_labels(source.labels, dataset.classes, f"{name},")
    if len(source):
        some = source.take(torch.zeros(1, dtype=torch.int64))
        if not isinstance(some, Examples):
            raise ValueError(f"{name}: take gave a {type(some).__name__}: it must give Examples")
        found, stated = (some.x.dtype, tuple(some.x.shape)), (dataset.modality.dtype, (1, *dataset.stored))
        if found != stated:
            raise ValueError(
                f"{name}: take gave {found[0]} {found[1]} for one example, and it is {stated[0]} {stated[1]}"
            )
    return source


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
