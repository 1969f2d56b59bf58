"""Packed pictures: every picture of a collection decoded once into memory-mapped uint8 arrays, named by their content.

    <cache>/pictures/<content>/     train.npy, test.npy (N, C, H, W); *.labels.npy (N,); about.json; if there are
                                    captions, *.captions.npy (UTF-8, one after the other) and *.caption_ends.npy (N,)
    <cache>/pictures/<stamp>.json   which content a collection has, as long as its files have these sizes and times

The content is a hash of the decoded pixels, classes, captions and splits, whatever their order, names, place or file
format: the same pictures in a zip are the same data. The second look at a collection costs a stat per file.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from os import cpu_count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

import torch
from torch import Tensor

from diffsweep.data.collections import Picture, Split, natural, pictures, stamp
from diffsweep.data.decode import BrokenPictureError, PictureFormat
from diffsweep.data.examples import Examples
from diffsweep.files import explained, make_folder, read_json, write_json
from diffsweep.mistakes import BadValue, one_of, share, whole

if TYPE_CHECKING:
    import numpy as np

# Of the packed form: raise it when equal files would become other pixels or splits.
_VERSION = 1
_NAMED = 3
_SPLITS: tuple[Split, Split] = ("train", "test")


@dataclass(frozen=True)
class Packing:
    """How a collection becomes a dataset.

    Attributes:
        size: pixels a side, >= 1; None if all pictures have one size already.
        channels: 1, 3 or 4; None for 1 if every picture is grey, else 3.
        crop: as of `PictureFormat`.
        labels: "auto" takes the classes that come with the pictures; "none" takes none.
        broken: "refuse", or "skip" to leave pictures out that cannot be read.
        test_share: share of the pictures that are held out, from 0 to below 1, chosen by a hash of their pixels: the
            choice stays when pictures are added, and doubles are on one side. Given splits are kept instead.
    """

    size: int | None
    channels: Literal[1, 3, 4] | None = None
    crop: Literal["center", "stretch"] = "center"
    labels: Literal["auto", "none"] = "auto"
    broken: Literal["refuse", "skip"] = "refuse"
    test_share: float = 0.1

    def __post_init__(self) -> None:
        if self.size is not None:
            whole("size", self.size, 1)
        if self.channels not in (None, 1, 3, 4):
            raise BadValue("channels", self.channels, "must be null, 1, 3 or 4")
        one_of("crop", self.crop, ["center", "stretch"])
        one_of("labels", self.labels, ["auto", "none"])
        one_of("broken", self.broken, ["refuse", "skip"])
        share("test_share", self.test_share, one=False)


@dataclass(frozen=True)
class Packed:
    """A packed collection.

    Attributes:
        folder: where its arrays lie.
        content: its identity, 16 hex characters.
        shape: of one picture, (C, H, W).
        class_names: by label; empty without classes.
        sigma_data: root mean square of the training pictures in [-1, 1], to four digits.
        train: how many pictures.
        test: how many are held out.
        captions: how many have one.
        broken: how many could not be read and were left out.
    """

    folder: Path
    content: str
    shape: tuple[int, int, int]
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

    def source(self, split: Split) -> PackedSource:
        """The pictures of a split, by number."""
        return PackedSource(self, split)


@final
class PackedSource:
    """A split of packed pictures, mapped from the disk: see `data.source.Source`.

    Args:
        packed: the collection.
        split: one of its splits.

    Attributes:
        labels: int64 (N,).
    """

    def __init__(self, packed: Packed, split: Split) -> None:
        import numpy as np

        self._identity = f"{packed.content}/{split}"
        # Writing changes no file: torch wants arrays that may be written.
        self._pixels = torch.from_numpy(np.load(packed.folder / f"{split}.npy", mmap_mode="c"))
        self.labels = torch.from_numpy(np.load(packed.folder / f"{split}.labels.npy"))
        self._labelled = bool(packed.classes)
        self._captions = _Captions.read(packed.folder, split) if packed.captions else None

    def __len__(self) -> int:
        return len(self._pixels)

    def take(self, numbers: Tensor) -> Examples:
        """uint8 (M, C, H, W), with label and caption where the collection has any; see `Source.take`."""
        captions = {} if self._captions is None else {"caption": self._captions.take(numbers)}
        return Examples(self._pixels[numbers], self.labels[numbers] if self._labelled else None, captions)

    def mapped(self) -> Examples:
        """All of them, without captions; see `MappedSource`."""
        return Examples(self._pixels, self.labels if self._labelled else None)

    def digest(self) -> str:
        """From the hash that names the packed pictures: nothing is read."""
        return hashlib.sha256(self._identity.encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class _Captions:
    """Texts one after the other, of which any can be read by number.

    Attributes:
        text: UTF-8, uint8 (bytes,), mapped from the disk.
        ends: where each ends, int64 (N,).
    """

    text: np.ndarray
    ends: np.ndarray

    @classmethod
    def read(cls, folder: Path, split: Split) -> _Captions:
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


def pack(path: Path, packing: Packing, cache: Path, *, show: bool = True) -> Packed:
    """The packed form of the collection at `path`, made if it is not there.

    Args:
        path: of a folder or file, see `data.collections`.
        packing: what becomes of the pictures.
        cache: folder for packed pictures.
        show: whether to draw a bar when standard error is a terminal.

    Raises:
        ValueError: in one line, for what is no collection, or has pictures that cannot be read.
        OSError: for what may not be read.
    """
    files = json.dumps([_VERSION, str(path.resolve()), asdict(packing), sorted(stamp(path))])
    seen = cache / "pictures" / f"{hashlib.sha256(files.encode(errors='surrogateescape')).hexdigest()[:24]}.json"
    known = read_json(seen)
    if known is not None:
        packed = Packed.read(cache / "pictures" / str(known.get("content")))
        if packed is not None:
            return replace(packed, broken=int(known["broken"]))
    packed = _Packer(path, packing, cache / "pictures", show).pack()
    write_json(seen, {"content": packed.content, "broken": packed.broken, "path": str(path)})
    return packed


@lru_cache(maxsize=16)
def _pack_once(path: Path, packing: Packing, cache: Path) -> Packed:
    # One process sees one state of a collection, however many configs name it.
    return pack(path, packing, cache)


def field_of_pictures(field: str, config: Any) -> Any:
    """What the configuration of a dataset takes from its pictures, packing them if that is not done.

    Args:
        field: content, shape, classes or sigma_data.
        config: has path, cache and the keys of `Packing`.

    Raises:
        ValueError: as `pack`.
    """
    given = {field.name: getattr(config, field.name) for field in fields(Packing)}
    try:
        packing = Packing(**given)
    except BadValue as error:
        raise error.below(str(config._get_full_key(""))) from None
    packed = _pack_once(Path(config.path), packing, Path(config.cache))
    value = getattr(packed, field)
    return list(value) if isinstance(value, tuple) else value


class _Packer:
    """Decodes a collection into a folder of its own, and renames that when it is whole."""

    def __init__(self, path: Path, packing: Packing, cache: Path, show: bool) -> None:
        self.path = path
        self.packing = packing
        self.cache = cache
        self.show = show
        self.found = pictures(path)
        labels = {picture.label for picture in self.found} if packing.labels == "auto" else set()
        if None in labels and len(labels) > 1:
            without = sum(picture.label is None for picture in self.found)
            raise ValueError(
                f"{without:,} of the {len(self.found):,} pictures in {path} have no class, and the others have: give "
                "all of them one, or set dataset.labels=none"
            )
        self.class_names = tuple(sorted((label for label in labels if label is not None), key=natural))

    def pack(self) -> Packed:
        make_folder(self.cache)
        with explained(self.cache), tempfile.TemporaryDirectory(dir=self.cache, prefix=".packing-") as temporary:
            folder = Path(temporary)
            pixels, digests, broken = self._decode(folder)
            about = self._write(folder, pixels, digests)
            packed = Packed(self.cache / about["content"], **about, broken=len(broken))
            if Packed.read(packed.folder) is None:
                shutil.rmtree(packed.folder, ignore_errors=True)
                write_json(folder / "about.json", about)
                (folder / "all.npy").unlink()
                # A name of its own: the temporary folder is removed on leaving.
                whole = folder.with_name(f"{folder.name}-whole")
                folder.rename(whole)
                folder.mkdir()
                whole.rename(packed.folder)
        return packed

    def _decode(self, folder: Path) -> tuple[np.ndarray, list[tuple[int, str]], list[tuple[str, str]]]:
        """Pixels (N, C, H, W) on the disk in the order of the list; place and hash of each; what is broken."""
        import numpy as np

        channels = self.packing.channels or 3
        picture_format = PictureFormat(self.packing.size, channels, self.packing.crop)
        pixels: np.ndarray | None = None
        digests: list[tuple[int, str]] = []
        broken: list[tuple[str, str]] = []
        for place, (picture, decoded) in enumerate(self._in_parallel(picture_format)):
            if isinstance(decoded, str):
                broken.append((picture.name, decoded))
                continue
            if pixels is None:
                shape = (len(self.found), *decoded.shape)
                pixels = np.lib.format.open_memmap(folder / "all.npy", mode="w+", dtype=np.uint8, shape=shape)
            if decoded.shape != pixels.shape[1:]:
                here, there = (f"{one[2]}x{one[1]}" for one in (decoded.shape, pixels.shape[1:]))
                raise ValueError(
                    f"{self.path} holds pictures of different sizes, as {there} and {here} ({picture.name}): "
                    "dataset.size=64 brings all to 64x64"
                )
            pixels[place] = decoded
            digests.append((place, hashlib.sha256(decoded.tobytes()).hexdigest()))
        if pixels is None or (broken and self.packing.broken == "refuse"):
            examples = ", ".join(f"{printable(name)} ({reason})" for name, reason in broken[:_NAMED])
            more = f" and {len(broken) - _NAMED:,} more" if len(broken) > _NAMED else ""
            advice = "; dataset.broken=skip leaves them out" if pixels is not None else ""
            raise ValueError(
                f"{len(broken):,} of the {len(self.found):,} pictures in {self.path} cannot be read: "
                f"{examples}{more}{advice}"
            )
        return pixels, digests, broken

    def _in_parallel(self, picture_format: PictureFormat) -> Iterator[tuple[Picture, np.ndarray | str]]:
        """Each picture with its pixels, or with the reason why there are none, in order; Pillow decodes in threads."""
        from tqdm import tqdm

        def decode(picture: Picture) -> np.ndarray | str:
            try:
                return picture_format.decode(picture.content())
            except FileNotFoundError:
                return "a link to nowhere"
            except (BrokenPictureError, OSError, ValueError) as error:
                return " ".join(str(error).split())

        bar = tqdm(total=len(self.found), desc="packing pictures", unit="img", disable=None if self.show else True)
        with bar, ThreadPoolExecutor(min(16, cpu_count() or 1)) as threads:
            # Some at a time: a million waiting results would fill the memory.
            for start in range(0, len(self.found), 512):
                batch = self.found[start : start + 512]
                for picture, decoded in zip(batch, threads.map(decode, batch), strict=True):
                    yield picture, decoded
                    bar.update()

    def _write(self, folder: Path, pixels: np.ndarray, digests: Sequence[tuple[int, str]]) -> dict[str, Any]:
        """Both splits in the order of their hashes; what is known of the whole."""
        import numpy as np

        grey = self.packing.channels is None and all(_is_grey(pixels[place]) for place, _ in digests)
        kept = slice(0, 1) if grey else slice(None)
        label_of = {name: label for label, name in enumerate(self.class_names)}
        items = sorted(
            (
                self._split(place, digest),
                digest,
                label_of.get(self.found[place].label or "", 0),
                self.found[place].caption or "",
                place,
            )
            for place, digest in digests
        )
        captions = sum(bool(caption) for *_, caption, _ in items)
        histogram, counts = np.zeros(256, dtype=np.int64), Counter(split for split, *_ in items)
        for split in _SPLITS:
            places = [place for other, *_, place in items if other == split]
            shape = (len(places), 1 if grey else pixels.shape[1], *pixels.shape[2:])
            x = (
                np.lib.format.open_memmap(folder / f"{split}.npy", mode="w+", dtype=np.uint8, shape=shape)
                if (places)
                else np.empty(shape, dtype=np.uint8)
            )
            for start in range(0, len(places), 1024):
                part = pixels[places[start : start + 1024], kept]
                x[start : start + len(part)] = part
                if split == "train":
                    histogram += np.bincount(part.ravel(), minlength=256)
            if not places:
                np.save(folder / f"{split}.npy", x)
            labels = np.array([label for other, _, label, *_ in items if other == split], dtype=np.int64)
            np.save(folder / f"{split}.labels.npy", labels)
            if captions:
                _Captions.write(folder, split, [caption for other, *_, caption, _ in items if other == split])
        if not counts["train"]:
            raise ValueError(f"all {len(items):,} pictures in {self.path} are held out: set dataset.test_share lower")
        # Without captions as it was before they were packed.
        known = 4 if captions else 3
        identity = [_VERSION, int(grey), pixels.shape[1:], self.class_names, [item[:known] for item in items]]
        values = (np.arange(256) / 127.5 - 1) ** 2
        return {
            "content": hashlib.sha256(json.dumps(identity).encode(errors="surrogateescape")).hexdigest()[:16],
            "shape": (1 if grey else pixels.shape[1], *pixels.shape[2:]),
            "class_names": self.class_names,
            "sigma_data": float(f"{math.sqrt(float(histogram @ values) / histogram.sum()):.4g}"),
            "train": counts["train"],
            "test": counts["test"],
            "captions": captions,
        }

    def _split(self, place: int, digest: str) -> Split:
        given = self.found[place].split
        return given or ("test" if int(digest[:8], 16) < self.packing.test_share * 2**32 else "train")


def _is_grey(pixels: np.ndarray) -> bool:
    return bool((pixels == pixels[:1]).all())


def printable(name: str) -> str:
    """A name as a terminal may show it: a file's name may hold bytes that are no text."""
    return name.encode(errors="backslashreplace").decode(errors="backslashreplace")
