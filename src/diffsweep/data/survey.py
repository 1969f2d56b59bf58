"""A survey of a collection: how many there are, of which sizes, kinds and classes, what is broken, what it costs."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from os import cpu_count
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from diffsweep.data.collections import Members, collection, file_names, natural, pictures
from diffsweep.data.collections.clips import SOUNDS, sounds, videos
from diffsweep.data.collections.members import outcome
from diffsweep.data.collections.names import SUFFIXES, printable, suffix
from diffsweep.data.decode import PictureFormat, picture_size
from diffsweep.data.decoders import Decoder, PictureDecoder, SoundDecoder, VideoDecoder
from diffsweep.data.sound_format import sound_length
from diffsweep.data.video_format import frame_count

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from diffsweep.data.collections.members import Content

Kind = Literal["images", "video", "audio"]

# On a contact sheet: how many, pixels between them, pixels of its width, about; frames and seconds of each.
_SHOWN, _GAP, _WIDTH, _FRAMES, _SECONDS = 48, 2, 1600, 8, 10.0


@dataclass(frozen=True)
class PixelStatistics:
    """What the pixels of pictures are, brought to one size.

    Attributes:
        grey: whether all are grey.
        doubles: how many have the pixels of an earlier one.
        mean: of the values in [-1, 1].
        std: their standard deviation.
        sigma_data: their root mean square, as of `dataset.sigma_data`.
    """

    grey: bool
    doubles: int
    mean: float
    std: float
    sigma_data: float


@dataclass(frozen=True)
class Survey:
    """What is in a collection.

    Attributes:
        noun: what its members are called, in the plural.
        count: how many there are.
        looked_at: how many of them were read, evenly over the list.
        classes: their number by class; empty without classes.
        captions: how many have a caption.
        splits: their number by given split; empty if none is given.
        formats: number by file format of those that were read.
        sizes: of each that can be read: width and height in pixels, or samples a second and channels.
        lengths: of each that can be read: frames of a video, seconds of a sound; empty for pictures.
        broken: (name, reason) of those that cannot be read.
        pixels: of pictures.
        seconds_each: that reading and decoding one took, all cores together.
        size: pixels a side that pictures and frames are brought to.
        readable: those that can be read.
    """

    noun: str
    count: int
    looked_at: int
    classes: dict[str, int]
    captions: int
    splits: Counter[str]
    formats: Counter[str]
    sizes: list[tuple[int, int]]
    lengths: list[float]
    broken: list[tuple[str, str]]
    pixels: PixelStatistics | None
    seconds_each: float
    size: int
    readable: Members = field(repr=False)

    def contact_sheet(self) -> Image:
        """Some of them side by side: pictures, strips of frames, or spectrograms. Raises ValueError if none is read."""
        import numpy as np
        import torch
        from PIL import Image

        from diffsweep.data.modality import IMAGES, VIDEOS
        from diffsweep.data.modality import sounds as sounds_of

        shown = min(_SHOWN, len(self.readable))
        chosen = self.readable.take([i * len(self.readable) // shown for i in range(shown)])
        decoder = self._decoder()
        kinds = {"pictures": IMAGES, "videos": VIDEOS}
        modality = sounds_of(decoder.sample_rate) if isinstance(decoder, SoundDecoder) else kinds[self.noun]
        found = [outcome(one, decoder.decode) for one in chosen]
        x = np.stack([one.values for one in found if not isinstance(one, str)])
        assert modality.picture is not None
        pictures = modality.picture(torch.from_numpy(x)).numpy()
        height, width = pictures.shape[2:]
        columns = max(1, min(12, _WIDTH // (width + _GAP)))
        rows = math.ceil(len(pictures) / columns)
        sheet = np.full((rows * (height + _GAP), columns * (width + _GAP), 3), 255, dtype=np.uint8)
        for i, picture in enumerate(pictures):
            top, left = (i // columns) * (height + _GAP), (i % columns) * (width + _GAP)
            sheet[top : top + height, left : left + width] = picture.transpose(1, 2, 0)
        return Image.fromarray(sheet)

    def _decoder(self) -> Decoder:
        if self.noun == "sounds":
            rate = max(1000, min(rate for rate, _ in self.sizes))
            seconds = min(_SECONDS, statistics.median(self.lengths))
            return SoundDecoder(rate, max(16, round(rate * seconds)))
        if self.noun == "videos":
            shortest = int(min(self.lengths))
            return VideoDecoder(self.size, min(_FRAMES, shortest), max(1, shortest // _FRAMES))
        return PictureDecoder(self.size, 3)


def kind_of(path: Path) -> Kind:
    """Audio for a folder that holds sounds and no pictures, else images: whether pictures are videos is not told."""
    if not path.is_dir():
        return "images"
    found = {suffix(name) for name in file_names(path)}
    return "audio" if found & SOUNDS and not found & SUFFIXES else "images"


def survey(path: Path, kind: Kind, size: int, *, most: int | None = 2000) -> Survey:
    """Look at a collection, without writing anything.

    Args:
        path: of a folder or file, see `data.collections`.
        kind: of its members.
        size: pixels a side that pictures and frames are brought to.
        most: how many members are read, evenly over the list; None for all.

    Raises:
        ValueError: in one line, for what is no collection, or holds nothing that can be read.
    """
    from tqdm import tqdm

    noun, find, look = _KINDS[kind]
    found = find(collection(path))
    count = len(found) if most is None else min(most, len(found))
    chosen = found.take([i * len(found) // count for i in range(count)])
    seen: dict[int, _Seen] = {}
    broken: list[tuple[str, str]] = []
    pixels = _Pixels()
    started = time.monotonic()
    bar = tqdm(total=count, desc=f"looking at {noun}", disable=None, leave=False)
    with bar, ThreadPoolExecutor(min(16, cpu_count() or 1)) as threads:
        # Some at a time: waiting results would fill the memory.
        for start in range(0, count, 512):
            places = range(start, min(start + 512, count))
            for place, one in zip(
                places,
                threads.map(lambda place: outcome(chosen[place], lambda content: look(content, size)), places),
                strict=True,
            ):
                bar.update()
                if isinstance(one, str):
                    broken.append((printable(chosen.names[place]), one))
                    continue
                if one.pixels is not None:
                    pixels.add(one.pixels)
                seen[place] = one._replace(pixels=None)
    if not seen:
        name, reason = broken[0]
        raise ValueError(f"none of the {len(found):,} {noun} in {path} can be read: {name} ({reason})")
    labels = Counter(label for label in found.labels if label is not None)
    return Survey(
        noun=noun,
        count=len(found),
        looked_at=count,
        classes={label: labels[label] for label in sorted(labels, key=natural)},
        captions=sum(caption is not None for caption in found.captions),
        splits=Counter(split for split in found.splits if split is not None),
        formats=Counter(one.kind for one in seen.values()),
        sizes=[one.size for one in seen.values()],
        lengths=[one.length for one in seen.values() if one.length is not None],
        broken=broken,
        pixels=pixels.statistics() if kind == "images" else None,
        seconds_each=(time.monotonic() - started) / count,
        size=size,
        readable=chosen.take(list(seen)),
    )


class _Seen(NamedTuple):
    """Of a member: its size, its file format, its length, and a picture's pixels."""

    size: tuple[int, int]
    kind: str
    length: float | None = None
    pixels: np.ndarray | None = None


def _picture(content: Content, size: int) -> _Seen:
    assert not isinstance(content, list)
    width, height, kind = picture_size(content)
    return _Seen((width, height), kind, pixels=PictureFormat(size).decode(content))


def _video(content: Content, size: int) -> _Seen:
    if not isinstance(content, bytes):
        width, height, kind = picture_size(content[0])
        return _Seen((width, height), f"{kind} frames", len(content))
    width, height, kind = picture_size(content)
    return _Seen((width, height), kind, frame_count(content))


def _sound(content: Content, size: int) -> _Seen:
    assert isinstance(content, bytes)
    samples, rate, channels, kind = sound_length(content)
    return _Seen((rate, channels), kind, samples / rate)


_KINDS: dict[Kind, tuple[str, Callable[[Path], Members], Callable[[Content, int], _Seen]]] = {
    "images": ("pictures", pictures, _picture),
    "video": ("videos", videos, _video),
    "audio": ("sounds", sounds, _sound),
}


class _Pixels:
    """Adds up pixels, uint8 (3, H, W)."""

    def __init__(self) -> None:
        self._histogram = [0] * 256
        self._grey = True
        self._count = 0
        self._hashes: set[int] = set()

    def add(self, pixels: np.ndarray) -> None:
        import numpy as np

        grey = bool((pixels == pixels[:1]).all())
        self._grey = self._grey and grey
        self._histogram = self._histogram + np.bincount((pixels[:1] if grey else pixels).ravel(), minlength=256)
        self._count += 1
        self._hashes.add(hash(pixels.tobytes()))

    def statistics(self) -> PixelStatistics:
        import numpy as np

        histogram, values = np.asarray(self._histogram, dtype=np.float64), np.arange(256) / 127.5 - 1
        mean, square = (float(histogram @ power) / histogram.sum() for power in (values, values**2))
        deviation = math.sqrt(max(0.0, square - mean**2))
        return PixelStatistics(self._grey, self._count - len(self._hashes), mean, deviation, math.sqrt(square))
