"""Splits of packed collections, read by number: mapped from the disk, or cut anew from the pictures for every epoch."""

from __future__ import annotations

import hashlib
from typing import final

import numpy as np
import torch
from torch import Tensor

from diffsweep.data.collections import Members
from diffsweep.data.decode import BrokenPictureError, PictureFormat
from diffsweep.data.examples import Examples
from diffsweep.data.packed import Captions, Packed
from diffsweep.settings import Split


@final
class PackedSource:
    """A split of a packed collection, mapped from the disk: see `data.source.Source`.

    Args:
        packed: the collection.
        split: one of its splits.

    Attributes:
        labels: int64 (N,).
    """

    def __init__(self, packed: Packed, split: Split) -> None:
        self._identity = f"{packed.content}/{split}"
        # Writing changes no file: torch wants arrays that may be written.
        self._pixels = torch.from_numpy(np.load(packed.folder / f"{split}.npy", mmap_mode="c"))
        self.labels = torch.from_numpy(np.load(packed.folder / f"{split}.labels.npy"))
        self._labelled = bool(packed.classes)
        self._captions = Captions.read(packed.folder, split) if packed.captions else None

    def __len__(self) -> int:
        return len(self._pixels)

    def take(self, numbers: Tensor) -> Examples:
        """(M, C, ...) as stored, with label and caption where the collection has any; see `Source.take`."""
        captions = {} if self._captions is None else {"caption": self._captions.take(numbers)}
        return Examples(self._pixels[numbers], self.labels[numbers] if self._labelled else None, captions)

    def mapped(self) -> Examples:
        """All of them; see `MappedSource`."""
        captions = {} if self._captions is None else {"caption": self._captions}
        return Examples(self._pixels, self.labels if self._labelled else None, captions)

    def digest(self) -> str:
        """From the hash that names what is packed: nothing is read."""
        return hashlib.sha256(self._identity.encode()).hexdigest()


@final
class RandomCrops:
    """A split of which a training sees another crop of each picture in every epoch: an `AugmentedSource`.

    `take` gives the crops that were packed, one of each picture, as whoever compares samples with the data needs them.

    Args:
        packed: the split with the crops that were packed.
        pictures: of each number, the picture.
        picture_format: that cuts at random.
    """

    def __init__(self, packed: PackedSource, pictures: Members, picture_format: PictureFormat) -> None:
        self._packed = packed
        self._pictures = pictures
        self._format = picture_format

    def __len__(self) -> int:
        return len(self._packed)

    @property
    def labels(self) -> Tensor:
        """int64 (N,)."""
        return self._packed.labels

    def take(self, numbers: Tensor) -> Examples:
        """See `Source.take`."""
        return self._packed.take(numbers)

    def augmented(self, numbers: Tensor, seeds: Tensor) -> Examples:
        """See `AugmentedSource.augmented`.

        Raises:
            ValueError: naming a picture that can no longer be read.
        """
        fixed = self._packed.take(numbers)
        x = torch.empty_like(fixed.x)
        for i, (number, seed) in enumerate(zip(numbers.tolist(), seeds.tolist(), strict=True)):
            picture = self._pictures[number]
            try:
                content = picture.content()
                assert isinstance(content, bytes | np.ndarray)
                x[i] = torch.from_numpy(self._format.decode(content, seed))
            except (BrokenPictureError, OSError) as error:
                raise ValueError(
                    f"{picture.name} could be read when the pictures were packed, and cannot now ({error})"
                ) from error
        return fixed.with_x(x)

    def digest(self) -> str:
        """That of the packed pictures, whose content counts every pixel of the pictures themselves."""
        return self._packed.digest()
