"""Packed collections as they lie on the disk: memory-mapped arrays, named by their content.

    <cache>/pictures/<content>/     train.npy, test.npy (N, C, ...); *.labels.npy (N,); about.json; if there are
                                    captions, *.captions.npy (UTF-8, one after the other) and *.caption_ends.npy (N,)

`data.packing` makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

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
class Captions(Sequence[str]):
    """Texts one after the other, of which any can be read by number: "" where there is none.

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

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...

    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        # Raises IndexError beyond the last, as a sequence must.
        place = range(len(self))[number]
        start = int(self.ends[place - 1]) if place else 0
        return self.text[start : int(self.ends[place])].tobytes().decode()

    def take(self, numbers: Tensor) -> list[str]:
        """The texts of these numbers."""
        return [self[i] for i in numbers.tolist()]
