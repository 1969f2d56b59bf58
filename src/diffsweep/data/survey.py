"""A survey of a collection of pictures: how many, of which sizes, kinds and classes, what is broken, what it costs."""

from __future__ import annotations

import math
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from typing import TYPE_CHECKING

from diffsweep.data.collections import Picture, collection, natural, pictures
from diffsweep.data.collections.picture import printable
from diffsweep.data.decode import BrokenPictureError, PictureFormat, picture_size

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image


@dataclass(frozen=True)
class Survey:
    """What is in a collection.

    Attributes:
        pictures: how many there are.
        looked_at: how many of them were read, evenly over the list.
        formats: number of pictures by file format.
        sizes: (width, height) of those that were read.
        classes: number of pictures by class; empty without classes.
        captions: how many have a caption.
        splits: number of pictures by given split; empty if none is given.
        broken: (name, reason) of those that cannot be read.
        doubles: how many of those that were read have the pixels of an earlier one.
        grey: whether all that were read are grey.
        mean: of the values in [-1, 1].
        std: their standard deviation.
        sigma_data: their root mean square, as of `dataset.sigma_data`.
        seconds_each: that reading and decoding one took, all cores together.
        examples: pixels (C, size, size) of some, spread over the list.
    """

    pictures: int
    looked_at: int
    formats: Counter[str]
    sizes: list[tuple[int, int]]
    classes: dict[str, int]
    captions: int
    splits: Counter[str]
    broken: list[tuple[str, str]]
    doubles: int
    grey: bool
    mean: float
    std: float
    sigma_data: float
    seconds_each: float
    examples: list[np.ndarray]

    def packed_bytes(self, size: int) -> int:
        """How many bytes the packed pictures will take."""
        return (self.pictures - len(self.broken)) * (1 if self.grey else 3) * size * size

    def contact_sheet(self, columns: int = 12) -> Image:
        """The examples side by side."""
        import numpy as np
        from PIL import Image

        side = self.examples[0].shape[1]
        rows = math.ceil(len(self.examples) / columns)
        sheet = np.full((rows * (side + 2), columns * (side + 2), 3), 255, dtype=np.uint8)
        for i, pixels in enumerate(self.examples):
            top, left = (i // columns) * (side + 2), (i % columns) * (side + 2)
            sheet[top : top + side, left : left + side] = pixels.transpose(1, 2, 0)
        return Image.fromarray(sheet)


def survey(path: Path, size: int, *, most: int | None = 2000, examples: int = 48, show: bool = True) -> Survey:
    """Look at a collection, without writing anything.

    Args:
        path: of a folder or file, see `data.collections`.
        size: pixels a side that all are brought to, for the statistics.
        most: how many pictures are read, evenly over the list; None for all.
        examples: how many are kept for the contact sheet.
        show: whether to draw a bar when standard error is a terminal.

    Raises:
        ValueError: in one line, for what is no collection, or if nothing in it can be read.
    """
    import numpy as np
    from tqdm import tqdm

    found = pictures(collection(path))
    count = len(found) if most is None else min(most, len(found))
    chosen = [found[i * len(found) // count] for i in range(count)]
    shown = {i * count // min(examples, count) for i in range(min(examples, count))}
    labels = Counter(picture.label for picture in found if picture.label is not None)
    formats: Counter[str] = Counter()
    sizes: list[tuple[int, int]] = []
    broken: list[tuple[str, str]] = []
    kept: list[np.ndarray] = []
    histogram, grey, seen = np.zeros(256, dtype=np.int64), True, set()
    started = time.monotonic()
    bar = tqdm(total=count, desc="looking at pictures", unit="img", disable=None if show else True, leave=False)
    with bar, ThreadPoolExecutor(min(16, cpu_count() or 1)) as threads:
        for start in range(0, count, 512):
            batch = chosen[start : start + 512]
            for i, result in enumerate(threads.map(lambda picture: _look_at(picture, size), batch), start):
                bar.update()
                if isinstance(result, str):
                    broken.append((printable(chosen[i].name), result))
                    continue
                width, height, kind, pixels = result
                sizes.append((width, height))
                formats[kind] += 1
                is_grey = bool((pixels == pixels[:1]).all())
                histogram += np.bincount((pixels[:1] if is_grey else pixels).ravel(), minlength=256)
                grey = grey and is_grey
                seen.add(pixels.tobytes() if pixels.size < 4096 else hash(pixels.tobytes()))
                if i in shown:
                    kept.append(pixels)
    if not sizes:
        name, reason = broken[0]
        raise ValueError(f"none of the {len(found):,} pictures in {path} can be read: {name} ({reason})")
    values, total = np.arange(256) / 127.5 - 1, int(histogram.sum())
    mean, square = float(histogram @ values) / total, float(histogram @ values**2) / total
    return Survey(
        pictures=len(found),
        looked_at=count,
        formats=formats,
        sizes=sizes,
        classes={label: labels[label] for label in sorted(labels, key=natural)},
        captions=sum(picture.caption is not None for picture in found),
        splits=Counter(picture.split for picture in found if picture.split is not None),
        broken=broken,
        doubles=len(sizes) - len(seen),
        grey=grey,
        mean=mean,
        std=math.sqrt(max(0.0, square - mean**2)),
        sigma_data=math.sqrt(square),
        seconds_each=(time.monotonic() - started) / count,
        examples=kept,
    )


def _look_at(picture: Picture, size: int) -> tuple[int, int, str, np.ndarray] | str:
    """Width, height, format and fitted pixels of a picture; or why it cannot be read."""
    try:
        content = picture.content()
        return *picture_size(content), PictureFormat(size).decode(content)
    except FileNotFoundError:
        return "a link to nowhere"
    except (BrokenPictureError, OSError, ValueError) as error:
        return " ".join(str(error).split())
