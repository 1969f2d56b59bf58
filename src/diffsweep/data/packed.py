"""Packed collections as they lie on the disk: memory-mapped arrays, named by their content.

    <cache>/pictures/<content>/     train.npy, test.npy (N, C, ...); *.labels.npy (N,); about.json; if there are
                                    captions, *.captions.npy (UTF-8, one after the other) and *.caption_ends.npy (N,)

`data.packing` makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.files import read_json
from diffsweep.settings import Split

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """A packed collection.

    Attributes:
        folder: where its arrays lie.
        content: its identity, 16 hex characters.
        shape: of one example as stored, (C, ...).
        class_names: by label; empty without classes.
        sigma_data: root mean square of the training examples in [-1, 1], to four digits.
        train: how many examples.
        test: how many are held out.
        captions: how many have one.
        broken: how many could not be read and were left out.
    """

    folder: Path
    content: str
    shape: tuple[int, ...]
    class_names: tuple[str, ...]
    sigma_data: float
    train: int
    test: int
    captions: int = 0
    broken: int = 0

    @property
    def classes(self) -> int:
        """Number of labels, 0 for none."""
        return len(self.class_names)

    @classmethod
    def read(cls, folder: Path) -> Packed | None:
        """The packed collection in `folder`; None if it is not there or not whole."""
        about: dict[str, Any] | None = read_json(folder / "about.json")
        if about is None:
            return None
        shape, class_names = tuple(about.pop("shape")), tuple(about.pop("class_names"))
        return cls(folder, shape=shape, class_names=class_names, **about)


@dataclass(frozen=True, eq=False)
class Captions:
    """Texts one after the other, of which any can be read by number.

    Attributes:
        text: UTF-8, uint8 (bytes,), mapped from the disk.
        ends: where each ends, int64 (N,).
    """

    text: np.ndarray
    ends: np.ndarray

    @classmethod
    def read(cls, folder: Path, split: Split) -> Captions:
        import numpy as np

        ends = np.load(folder / f"{split}.caption_ends.npy")
        # A file without a byte cannot be mapped.
        mode = "r" if len(ends) and ends[-1] else None
        return cls(np.load(folder / f"{split}.captions.npy", mmap_mode=mode), ends)

    @staticmethod
    def write(folder: Path, split: Split, captions: Sequence[str]) -> None:
        import numpy as np

        texts = [caption.encode(errors="replace") for caption in captions]
        np.save(folder / f"{split}.captions.npy", np.frombuffer(b"".join(texts), dtype=np.uint8))
        np.save(folder / f"{split}.caption_ends.npy", np.cumsum([len(text) for text in texts], dtype=np.int64))

    def take(self, numbers: Tensor) -> list[str]:
        """The texts of these numbers, "" where there is none."""
        starts = [int(self.ends[i - 1]) if i else 0 for i in numbers.tolist()]
        ends = [int(self.ends[i]) for i in numbers.tolist()]
        return [self.text[start:end].tobytes().decode() for start, end in zip(starts, ends, strict=True)]
