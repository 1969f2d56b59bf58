"""Packing of videos and sounds: each is decoded once, and the whole is kept and named as packed pictures are.

    <cache>/videos/<content>/       as `data.packed`; of sounds <cache>/sounds
    <cache>/videos/<stamp>.json     which content a collection has, as long as its files have these sizes and times

The content is a hash of what was decoded, with classes, captions and splits, whatever their order, names or place.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache, partial
from os import cpu_count
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

from diffsweep.data.collections import Split, natural, stamp
from diffsweep.data.collections.clips import Clip, sounds, videos
from diffsweep.data.decode import BrokenPictureError, PictureFormat
from diffsweep.data.packed import Packed
from diffsweep.data.sound_format import SoundFormat
from diffsweep.data.video_format import VideoFormat
from diffsweep.files import explained, make_folder, read_json, write_json
from diffsweep.mistakes import BadValue, one_of, share, whole

if TYPE_CHECKING:
    import numpy as np

# Of the packed form: raise it when equal files would become other values or splits.
_VERSION = 1
_NAMED = 3
_SPLITS: tuple[Split, Split] = ("train", "test")
_AT_A_TIME = 128


class ClipPacking(Protocol):
    """How a collection of videos or sounds becomes a dataset; a frozen dataclass, whose fields name the result.

    Attributes:
        noun: what they are called, in the plural.
        labels: "auto" takes the classes that come with them; "none" takes none.
        broken: "refuse", or "skip" to leave out what cannot be read.
        test_share: share that is held out, from 0 to below 1, chosen by a hash of the content; given splits are kept.
        zero: the stored value that is 0 to a network, and `unit`: the steps from there to 1.
        alike: whether channels that are all equal become one.
    """

    noun: ClassVar[str]
    zero: ClassVar[float]
    unit: ClassVar[float]

    @property
    def labels(self) -> str: ...

    @property
    def broken(self) -> str: ...

    @property
    def test_share(self) -> float: ...

    @property
    def alike(self) -> bool: ...

    def find(self, path: Path) -> list[Clip]:
        """What is in the collection at `path`. Raises ValueError or OSError."""
        ...

    def decode(self, content: bytes | Sequence[bytes]) -> np.ndarray:
        """One of them as it is stored. Raises BrokenPictureError, or ValueError for what no other could do better."""
        ...

    def differ(self, one: Sequence[int], other: Sequence[int]) -> str:
        """What to say of two shapes that differ."""
        ...


def _check(labels: str, broken: str, test_share: float) -> None:
    one_of("labels", labels, ["auto", "none"])
    one_of("broken", broken, ["refuse", "skip"])
    share("test_share", test_share, one=False)


@dataclass(frozen=True)
class VideoPacking:
    """See `ClipPacking`, and for size, channels and crop `PictureFormat`, for frames and stride `VideoFormat`."""

    noun: ClassVar[str] = "videos"
    zero: ClassVar[float] = 127.5
    unit: ClassVar[float] = 127.5

    size: int | None
    frames: int | None
    stride: int = 1
    channels: Literal[1, 3, 4] | None = None
    crop: Literal["center", "stretch"] = "center"
    labels: Literal["auto", "none"] = "auto"
    broken: Literal["refuse", "skip"] = "refuse"
    test_share: float = 0.1

    def __post_init__(self) -> None:
        if self.size is not None:
            whole("size", self.size, 1)
        if self.frames is not None:
            whole("frames", self.frames, 2)
        whole("stride", self.stride, 1)
        if self.channels not in (None, 1, 3, 4):
            raise BadValue("channels", self.channels, "must be null, 1, 3 or 4")
        one_of("crop", self.crop, ["center", "stretch"])
        _check(self.labels, self.broken, self.test_share)

    @property
    def alike(self) -> bool:
        return self.channels is None

    def find(self, path: Path) -> list[Clip]:
        return videos(path)

    def decode(self, content: bytes | Sequence[bytes]) -> np.ndarray:
        picture = PictureFormat(self.size, self.channels or 3, self.crop)
        return VideoFormat(picture, self.frames, self.stride).decode(content)

    def differ(self, one: Sequence[int], other: Sequence[int]) -> str:
        here, there = (f"{shape[1]} frames of {shape[3]}x{shape[2]}" for shape in (one, other))
        return f"{here} and {there}: set dataset.size, and dataset.frames to the number of the shortest"


@dataclass(frozen=True)
class SoundPacking:
    """See `ClipPacking`, and `SoundFormat`."""

    noun: ClassVar[str] = "sounds"
    zero: ClassVar[float] = 0.0
    unit: ClassVar[float] = 32768.0

    sample_rate: int
    length: int
    channels: Literal[1, 2] = 1
    crop: Literal["start", "center"] = "start"
    normalize: Literal["peak", "none"] = "peak"
    labels: Literal["auto", "none"] = "auto"
    broken: Literal["refuse", "skip"] = "refuse"
    test_share: float = 0.1

    def __post_init__(self) -> None:
        whole("sample_rate", self.sample_rate, 1000, 384_000)
        whole("length", self.length, 16, 2**24)
        if self.channels not in (1, 2):
            raise BadValue("channels", self.channels, "must be 1 or 2")
        one_of("crop", self.crop, ["start", "center"])
        one_of("normalize", self.normalize, ["peak", "none"])
        _check(self.labels, self.broken, self.test_share)

    @property
    def alike(self) -> bool:
        return False

    def find(self, path: Path) -> list[Clip]:
        return sounds(path)

    def decode(self, content: bytes | Sequence[bytes]) -> np.ndarray:
        assert isinstance(content, bytes)
        return SoundFormat(self.sample_rate, self.channels, self.length, self.crop, self.normalize).decode(content)

    def differ(self, one: Sequence[int], other: Sequence[int]) -> str:
        return f"{one} and {other}"


def pack_clips(path: Path, packing: ClipPacking, cache: Path, *, show: bool = True) -> Packed:
    """The packed form of the collection at `path`, made if it is not there.

    Args:
        path: of a folder or file, see `data.collections.clips`.
        packing: what becomes of what is there.
        cache: folder for what is packed.
        show: whether to draw a bar when standard error is a terminal.

    Raises:
        ValueError: in one line, for what is no such collection, or holds what cannot be read.
        OSError: for what may not be read.
    """
    folder = cache / packing.noun
    files = json.dumps([_VERSION, str(path.resolve()), _fields(packing), sorted(stamp(path))])
    seen = folder / f"{_hash(files)[:24]}.json"
    known = read_json(seen)
    packed = None if known is None else Packed.read(folder / str(known.get("content")))
    if packed is None or known is None:
        packed = _Packer(path, packing, folder, packing.find(path), show).pack()
        write_json(seen, {"content": packed.content, "broken": packed.broken, "path": str(path)})
        return packed
    return replace(packed, broken=int(known["broken"]))


def packed_clips(path: Path, packing: ClipPacking, cache: Path, content: str | None) -> Packed:
    """What is packed under the name `content`, or else at `path`, which must then be of that content.

    Raises:
        ValueError: as `pack_clips`, and if the collection is another by now.
    """
    if content is not None:
        # Without a look at the collection: on a cluster's node the cache may be all that there is.
        packed = Packed.read(cache / packing.noun / content)
        if packed is not None:
            return packed
    packed = pack_clips(path, packing, cache)
    if content not in (None, packed.content):
        raise ValueError(
            f"the {packing.noun} in {path} are no longer those of this run: their content was {content} and is "
            f"{packed.content} now"
        )
    return packed


@lru_cache(maxsize=16)
def _pack_once(path: Path, packing: Any, cache: Path) -> Packed:
    # One process sees one state of a collection, however many configs name it.
    return pack_clips(path, packing, cache)


def field_of_clips(kind: type[VideoPacking] | type[SoundPacking], field: str, config: Any) -> Any:
    """What the configuration of a dataset takes from its videos or sounds, packing them if that is not done.

    Args:
        kind: how they are packed.
        field: content, shape, classes or sigma_data.
        config: has path, cache and the keys of `kind`.

    Raises:
        ValueError: as `pack_clips`.
    """
    given = {one.name: getattr(config, one.name) for one in fields(kind)}
    try:
        packing = kind(**given)
    except BadValue as error:
        raise error.below(str(config._get_full_key(""))) from None
    value = getattr(_pack_once(Path(config.path), packing, Path(config.cache)), field)
    return list(value) if isinstance(value, tuple) else value


def _fields(packing: Any) -> dict[str, Any]:
    return asdict(packing)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


class _Item(NamedTuple):
    """One that is packed: what orders it, and its place in the collection's list."""

    split: Split
    digest: str
    label: int
    caption: str
    place: int


@dataclass(frozen=True)
class _Packer:
    """Decodes a collection into a folder of its own, and renames that when it is whole."""

    path: Path
    packing: ClipPacking
    cache: Path
    found: Sequence[Clip]
    show: bool

    def pack(self) -> Packed:
        class_names = self._class_names()
        make_folder(self.cache)
        with explained(self.cache), tempfile.TemporaryDirectory(dir=self.cache, prefix=".packing-") as temporary:
            folder = Path(temporary)
            values, digests, broken = self._decode(folder)
            items = self._items(digests, class_names)
            about = self._write(folder, values, items, class_names)
            place = self.cache / about["content"]
            if Packed.read(place) is None:
                shutil.rmtree(place, ignore_errors=True)
                write_json(folder / "about.json", about)
                (folder / "all.npy").unlink()
                # A name of its own: the temporary folder is removed on leaving.
                whole_folder = folder.with_name(f"{folder.name}-whole")
                folder.rename(whole_folder)
                folder.mkdir()
                whole_folder.rename(place)
        packed = Packed.read(place)
        assert packed is not None
        return replace(packed, broken=broken)

    def _class_names(self) -> tuple[str, ...]:
        labels = {clip.label for clip in self.found} if self.packing.labels == "auto" else set()
        if None in labels and len(labels) > 1:
            without = sum(clip.label is None for clip in self.found)
            raise ValueError(
                f"{without:,} of the {len(self.found):,} {self.packing.noun} in {self.path} have no class, and the "
                "others have: give all of them one, or set dataset.labels=none"
            )
        return tuple(sorted((label for label in labels if label is not None), key=natural))

    def _decode(self, folder: Path) -> tuple[np.ndarray, list[tuple[int, str]], int]:
        """All of them on the disk in the order of the list; place and hash of each; how many are broken."""
        import numpy as np
        from tqdm import tqdm

        values: np.ndarray | None = None
        digests: list[tuple[int, str]] = []
        broken: list[str] = []
        total, noun = len(self.found), self.packing.noun
        bar = tqdm(total=total, desc=f"packing {noun}", disable=None if self.show else True)
        with bar, ThreadPoolExecutor(min(16, cpu_count() or 1)) as threads:
            # Some at a time: waiting results would fill the memory.
            for start in range(0, total, _AT_A_TIME):
                batch = self.found[start : start + _AT_A_TIME]
                for place, one in enumerate(threads.map(partial(_decoded, self.packing), batch), start):
                    bar.update()
                    if isinstance(one, str):
                        broken.append(f"{_printable(self.found[place].name)} ({one})")
                        continue
                    if values is None:
                        shape = (total, *one.shape)
                        values = np.lib.format.open_memmap(folder / "all.npy", mode="w+", dtype=one.dtype, shape=shape)
                    if one.shape != values.shape[1:]:
                        words = self.packing.differ(values.shape[1:], one.shape)
                        name = _printable(self.found[place].name)
                        raise ValueError(f"{self.path} holds different {noun} ({name}): {words}")
                    values[place] = one
                    digests.append((place, hashlib.sha256(one.tobytes()).hexdigest()))
        if values is None or (broken and self.packing.broken == "refuse"):
            more = f" and {len(broken) - _NAMED:,} more" if len(broken) > _NAMED else ""
            advice = "; dataset.broken=skip leaves them out" if values is not None else ""
            raise ValueError(
                f"{len(broken):,} of the {total:,} {noun} in {self.path} cannot be read: "
                f"{', '.join(broken[:_NAMED])}{more}{advice}"
            )
        return values, digests, len(broken)

    def _items(self, digests: Sequence[tuple[int, str]], class_names: Sequence[str]) -> list[_Item]:
        label_of = {name: label for label, name in enumerate(class_names)}
        items = []
        for place, digest in digests:
            clip = self.found[place]
            split = clip.split or ("test" if int(digest[:8], 16) < self.packing.test_share * 2**32 else "train")
            items.append(_Item(split, digest, label_of.get(clip.label or "", 0), clip.caption or "", place))
        if not any(item.split == "train" for item in items):
            raise ValueError(
                f"all {len(items):,} {self.packing.noun} in {self.path} are held out: set dataset.test_share lower"
            )
        return sorted(items)

    def _write(
        self, folder: Path, values: np.ndarray, items: Sequence[_Item], class_names: Sequence[str]
    ) -> dict[str, Any]:
        """Both splits; what is known of the whole."""
        import numpy as np

        grey = self.packing.alike and all(bool((values[i.place] == values[i.place][:1]).all()) for i in items)
        shape = (1 if grey else values.shape[1], *values.shape[2:])
        squares = 0.0
        for split in _SPLITS:
            here = [item for item in items if item.split == split]
            x = (
                np.lib.format.open_memmap(folder / f"{split}.npy", "w+", values.dtype, (len(here), *shape))
                if here
                else np.empty((0, *shape), dtype=values.dtype)
            )
            for place, item in enumerate(here):
                x[place] = values[item.place][: shape[0]]
                if split == "train":
                    squares += float(np.square(x[place].astype(np.float64) - self.packing.zero).sum())
            if not here:
                np.save(folder / f"{split}.npy", x)
            np.save(folder / f"{split}.labels.npy", np.array([item.label for item in here], dtype=np.int64))
        train = sum(item.split == "train" for item in items)
        rms = math.sqrt(squares / (train * math.prod(shape))) / self.packing.unit
        if not rms:
            raise ValueError(f"all {self.packing.noun} in {self.path} are silent or grey: there is nothing to learn")
        identity = [_VERSION, self.packing.noun, int(grey), shape, class_names, [item[:4] for item in items]]
        return {
            "content": _hash(json.dumps(identity))[:16],
            "shape": shape,
            "class_names": class_names,
            "sigma_data": float(f"{rms:.4g}"),
            "train": train,
            "test": len(items) - train,
        }


def _printable(name: str) -> str:
    # A file's name may hold bytes that are no text.
    return name.encode(errors="backslashreplace").decode()


def _decoded(packing: ClipPacking, clip: Clip) -> np.ndarray | str:
    """One of them, or the reason why it cannot be read."""
    try:
        return packing.decode(clip.content())
    except FileNotFoundError:
        return "a link to nowhere"
    except (BrokenPictureError, OSError) as error:
        return " ".join(str(error).split())
