"""Packing: every picture of a collection is decoded once into memory-mapped uint8 arrays, named by their content.

    <cache>/pictures/<content>/         what is packed, see `data.packed`
    <cache>/pictures/<stamp>.json       which content a collection has, as long as its files have these sizes and times
    <cache>/pictures/<place>.manifest   the files and pictures of the collection at a path when it was last looked at
    <cache>/pictures/.work-<stamp>/     the lease of who packs it, and how far that is

The content is a hash of the decoded pixels, classes, captions and splits, whatever their order, names, place or file
format: the same pictures in a zip are the same data. The second look at a collection costs a stat per file.

Of several processes, on any host, one packs, and the others wait for it. One that is killed leaves what it has decoded,
from which the next goes on.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache, partial
from os import cpu_count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from uuid import uuid4

from diffsweep.data.collections import Picture, Split, collection, natural, pictures, stamp
from diffsweep.data.collections.picture import printable
from diffsweep.data.decode import CROPS, BrokenPictureError, Crop, PictureFormat
from diffsweep.data.decoded_pictures import DecodedPictures, DifferentSizesError, drop_pages
from diffsweep.data.manifest import Manifest
from diffsweep.data.packed import Captions, Packed
from diffsweep.files import atomic, explained, read_json, write_json
from diffsweep.messages import say
from diffsweep.mistakes import BadValue, one_of, share, whole
from diffsweep.sweep.store.lease import Lease, LeaseLostError
from diffsweep.sweep.store.process import Process

if TYPE_CHECKING:
    import numpy as np

# Of the packed form: raise it when equal files would become other pixels or splits.
_VERSION = 1
_NAMED = 3
_SPLITS: tuple[Split, Split] = ("train", "test")
# Pictures that are decoded at a time: a million waiting results would fill the memory.
_AT_A_TIME = 512
# Seconds between lines about how far it is, where no bar is drawn, and between states that can be gone on from.
_REPORT_SECONDS = 10.0


@dataclass(frozen=True)
class Packing:
    """How a collection becomes a dataset.

    Attributes:
        size: pixels a side, >= 1; None if all pictures have one size already.
        channels: 1, 3 or 4; None for 1 if every picture is grey, else 3.
        crop: as of `PictureFormat`; of random crops one of each picture is packed, chosen by its pixels.
        labels: "auto" takes the classes that come with the pictures; "none" takes none.
        broken: "refuse", or "skip" to leave pictures out that cannot be read.
        test_share: share of the pictures that are held out, from 0 to below 1, chosen by a hash of their pixels: the
            choice stays when pictures are added, and doubles are on one side. Given splits are kept instead.
        smallest_crop: as of `PictureFormat`.
    """

    size: int | None
    channels: Literal[1, 3, 4] | None = None
    crop: Crop = "center"
    labels: Literal["auto", "none"] = "auto"
    broken: Literal["refuse", "skip"] = "refuse"
    test_share: float = 0.1
    smallest_crop: float = 0.8

    def __post_init__(self) -> None:
        if self.size is not None:
            whole("size", self.size, 1)
        if self.channels not in (None, 1, 3, 4):
            raise BadValue("channels", self.channels, "must be null, 1, 3 or 4")
        one_of("crop", self.crop, CROPS)
        share("smallest_crop", self.smallest_crop, zero=False)
        if self.crop == "random" and self.size is None:
            raise BadValue("size", self.size, "must be a number of pixels for crop=random")
        one_of("labels", self.labels, ["auto", "none"])
        one_of("broken", self.broken, ["refuse", "skip"])
        share("test_share", self.test_share, one=False)

    def picture_format(self, channels: int) -> PictureFormat:
        """What every picture becomes, with 1, 3 or 4 channels."""
        return PictureFormat(self.size, channels, self.crop, self.smallest_crop)  # pyright: ignore[reportArgumentType]


def pack(path: Path, packing: Packing, cache: Path, *, show: bool = True) -> Packed:
    """The packed form of the collection at `path`, made if it is not there.

    Args:
        path: of a folder or file, see `data.collections`.
        packing: what becomes of the pictures.
        cache: folder for packed pictures.
        show: whether to say how far it is: by a bar on a terminal, else by a line now and then.

    Raises:
        ValueError: in one line, for what is no collection, or has pictures that cannot be read.
        OSError: for what may not be read.
    """
    return _located(path, packing, cache, show)[0]


def packed_pictures(path: Path, packing: Packing, cache: Path, split: Split) -> list[Picture]:
    """The pictures of a packed split themselves, in its order; the collection must be there.

    Arguments and errors as `pack`.
    """
    import numpy as np

    packed, stamped = _located(path, packing, cache, True)
    found = pictures(collection(path))
    places = np.load(cache / "pictures" / f"{stamped}.{split}.npy")
    assert len(places) == (packed.train if split == "train" else packed.test)
    return [found[place] for place in places.tolist()]


def _located(path: Path, packing: Packing, cache: Path, show: bool) -> tuple[Packed, str]:
    """What is packed, and the name of the collection's present state."""
    folder = cache / "pictures"
    path = collection(path)
    files = sorted(stamp(path))
    given = asdict(packing)
    if packing.crop != "random":
        # As it was before there were random crops, so that what is packed is found again.
        del given["smallest_crop"]
    stamped = _hash([_VERSION, str(path.resolve()), given, files])
    packed = _known(folder, stamped)
    if packed is not None:
        return packed, stamped
    # What is decoded does not depend on what becomes of broken pictures.
    del given["broken"]
    place = _hash([str(path.resolve()), given])
    found = pictures(path)

    def waiting(holder: Process | None) -> None:
        say(f"the pictures in {path} are being packed by {holder}; waiting for it")

    work = folder / f".work-{place}"
    with Lease(work).acquire(on_wait=waiting) as lease:
        packed = _known(folder, stamped)
        if packed is None:
            decoded = DecodedPictures(work, _hash([_VERSION, files]), len(found))
            packed, items = _Packer(path, packing, folder, found, decoded, lease.still_held, show).pack()
            if packing.crop == "random":
                _write_places(folder, stamped, items)
            _tell_changes(path, Manifest(folder / f"{place}.manifest"), files, {found[i.place].name: i for i in items})
            write_json(
                folder / f"{stamped}.json", {"content": packed.content, "broken": packed.broken, "path": str(path)}
            )
            decoded.remove()
    return packed, stamped


def _write_places(folder: Path, stamped: str, items: Sequence[_Item]) -> None:
    """Keep which picture of the collection is which of a split."""
    import numpy as np

    for split in _SPLITS:
        with atomic(folder / f"{stamped}.{split}.npy") as temporary:
            np.save(temporary, np.array([item.place for item in items if item.split == split], dtype=np.int64))


def _tell_changes(
    path: Path, manifest: Manifest, files: Sequence[tuple[str, int, int]], items: Mapping[str, _Item]
) -> None:
    hashes = {name: item.digest[:16] for name, item in items.items()}
    if changes := manifest.changes(hashes):
        say(f"{path} has changed since it was last packed ({changes}): these are other data, and other trainings")
    manifest.write(files, hashes)


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode(errors="surrogateescape")).hexdigest()[:24]


def _known(folder: Path, stamped: str) -> Packed | None:
    known = read_json(folder / f"{stamped}.json")
    packed = None if known is None else Packed.read(folder / str(known.get("content")))
    return None if packed is None or known is None else replace(packed, broken=int(known["broken"]))


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


@dataclass(frozen=True)
class _Packer:
    """Decodes a collection, brings it into the order of its content, and gives the whole its name.

    Attributes:
        path: of the collection.
        packing: what becomes of the pictures.
        cache: folder of all packed collections.
        found: the collection's pictures.
        decoded: what is decoded of them so far.
        held: whether this process may still pack.
        show: as of `pack`.
    """

    path: Path
    packing: Packing
    cache: Path
    found: Sequence[Picture]
    decoded: DecodedPictures
    held: Callable[[], bool]
    show: bool

    def pack(self) -> tuple[Packed, list[_Item]]:
        """What is packed, and its pictures in the order in which it has them."""
        class_names = self._class_names()
        self._decode()
        items = self._items(class_names)
        folder = self.cache / f".packing-{uuid4().hex[:12]}"
        with explained(self.cache):
            folder.mkdir()
            try:
                about = self._write(folder, items, class_names)
                packed = Packed(self.cache / about["content"], **about, broken=len(self.decoded.broken))
                if Packed.read(packed.folder) is None:
                    shutil.rmtree(packed.folder, ignore_errors=True)
                    write_json(folder / "about.json", about)
                    folder.rename(packed.folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        return packed, items

    def _class_names(self) -> tuple[str, ...]:
        labels = {picture.label for picture in self.found} if self.packing.labels == "auto" else set()
        if None in labels and len(labels) > 1:
            without = sum(picture.label is None for picture in self.found)
            raise ValueError(
                f"{without:,} of the {len(self.found):,} pictures in {self.path} have no class, and the others have: "
                "give all of them one, or set dataset.labels=none"
            )
        return tuple(sorted((label for label in labels if label is not None), key=natural))

    def _decode(self) -> None:
        """Decode what is not decoded yet; Pillow does so in threads."""
        state, picture_format = self.decoded, self.packing.picture_format(self.packing.channels or 3)
        with _Progress(len(self.found), state.done, self.show) as progress, explained(self.cache):
            threads = ThreadPoolExecutor(min(16, cpu_count() or 1))
            with threads:
                for start in range(state.done, len(self.found), _AT_A_TIME):
                    batch = self.found[start : start + _AT_A_TIME]
                    for place, one in enumerate(threads.map(partial(_decode, picture_format), batch), start):
                        self._keep(place, one)
                        progress.update()
                    state.done = start + len(batch)
                    if progress.time_to_report():
                        state.save()
                        if not self.held():
                            raise LeaseLostError(f"{self.path} is being packed by another process")
        if state.broken and (self.packing.broken == "refuse" or len(state.broken) == len(self.found)):
            # With dataset.broken=skip nothing is decoded again.
            state.save()
            named = [f"{printable(self.found[place].name)} ({why})" for place, why in sorted(state.broken.items())]
            more = f" and {len(named) - _NAMED:,} more" if len(named) > _NAMED else ""
            advice = "; dataset.broken=skip leaves them out" if len(named) < len(self.found) else ""
            raise ValueError(
                f"{len(named):,} of the {len(self.found):,} pictures in {self.path} cannot be read: "
                f"{', '.join(named[:_NAMED])}{more}{advice}"
            )

    def _keep(self, place: int, one: _Decoded | str) -> None:
        if isinstance(one, str):
            self.decoded.broken[place] = one
            return
        try:
            self.decoded.put(place, one.pixels, one.digest, grey=one.grey)
        except DifferentSizesError as error:
            raise ValueError(
                f"{self.path} holds {error} ({printable(self.found[place].name)}): dataset.size=64 brings all to 64x64"
            ) from error

    def _items(self, class_names: Sequence[str]) -> list[_Item]:
        """The pictures that can be read, in the order of split and content."""
        label_of = {name: label for label, name in enumerate(class_names)}
        items = []
        for place, picture in enumerate(self.found):
            if place in self.decoded.broken:
                continue
            digest = self.decoded.digests[place].tobytes().hex()
            split = picture.split or ("test" if int(digest[:8], 16) < self.packing.test_share * 2**32 else "train")
            items.append(_Item(split, digest, label_of.get(picture.label or "", 0), picture.caption or "", place))
        if not any(item.split == "train" for item in items):
            raise ValueError(f"all {len(items):,} pictures in {self.path} are held out: set dataset.test_share lower")
        return sorted(items)

    def _write(self, folder: Path, items: Sequence[_Item], class_names: Sequence[str]) -> dict[str, Any]:
        """Both splits; what is known of the whole."""
        import numpy as np

        pixels = self.decoded.pixels
        assert pixels is not None
        grey = self.packing.channels is None and all(self.decoded.grey[item.place] for item in items)
        kept = slice(0, 1) if grey else slice(None)
        captions = sum(bool(item.caption) for item in items)
        histogram = np.zeros(256, dtype=np.int64)
        counts = Counter(item.split for item in items)
        for split in _SPLITS:
            here = [item for item in items if item.split == split]
            shape = (len(here), 1 if grey else pixels.shape[1], *pixels.shape[2:])
            # A file without a byte cannot be mapped.
            x = (
                np.lib.format.open_memmap(folder / f"{split}.npy", mode="w+", dtype=np.uint8, shape=shape)
                if here
                else np.empty(shape, dtype=np.uint8)
            )
            for start in range(0, len(here), 1024):
                part = pixels[[item.place for item in here[start : start + 1024]], kept]
                x[start : start + len(part)] = part
                if start % 2**16 == 0:
                    drop_pages(pixels)
                    drop_pages(x)
                if split == "train":
                    histogram += np.bincount(part.ravel(), minlength=256)
            if not here:
                np.save(folder / f"{split}.npy", x)
            np.save(folder / f"{split}.labels.npy", np.array([item.label for item in here], dtype=np.int64))
            if captions:
                Captions.write(folder, split, [item.caption for item in here])
        values = (np.arange(256) / 127.5 - 1) ** 2
        return {
            "content": self._content(items, class_names, pixels.shape[1:], grey=grey, captions=bool(captions)),
            "shape": (1 if grey else pixels.shape[1], *pixels.shape[2:]),
            "class_names": class_names,
            "sigma_data": float(f"{math.sqrt(float(histogram @ values) / histogram.sum()):.4g}"),
            "train": counts["train"],
            "test": counts["test"],
            "captions": captions,
        }

    def _content(
        self, items: Sequence[_Item], class_names: Sequence[str], shape: tuple[int, ...], *, grey: bool, captions: bool
    ) -> str:
        """The name of what is packed: a hash of JSON, fed piece by piece, for a million pictures make a long text."""
        # Without captions it is as it was before they were packed; so it is without random crops.
        known = 4 if captions else 3
        crop = [[self.packing.crop, self.packing.smallest_crop]] if self.packing.crop == "random" else []
        head = json.dumps([_VERSION, int(grey), shape, class_names, *crop])
        sha = hashlib.sha256(f"{head[:-1]}, [".encode(errors="surrogateescape"))
        for i, item in enumerate(items):
            sha.update(f"{', ' if i else ''}{json.dumps(item[:known])}".encode())
        sha.update(b"]]")
        return sha.hexdigest()[:16]


class _Item(NamedTuple):
    """A picture that is packed: what orders it, and its place in the collection's list."""

    split: Split
    digest: str
    label: int
    caption: str
    place: int


class _Decoded(NamedTuple):
    """A picture at its size: pixels uint8 (C, H, W), SHA-256 of what is its identity, whether it has no colours."""

    pixels: np.ndarray
    digest: bytes
    grey: bool


def _decode(picture_format: PictureFormat, picture: Picture) -> _Decoded | str:
    """The picture, or the reason why it cannot be read."""
    import numpy as np

    try:
        whole_picture = picture_format.read(picture.content())
    except FileNotFoundError:
        return "a link to nowhere"
    except (BrokenPictureError, OSError, ValueError) as error:
        return " ".join(str(error).split())
    if picture_format.crop != "random":
        pixels = picture_format.cut(whole_picture)
        return _Decoded(pixels, hashlib.sha256(pixels.tobytes()).digest(), bool((pixels == pixels[:1]).all()))
    # Every pixel may be seen, so every pixel counts; the crop that is packed follows from them.
    values = np.asarray(whole_picture)
    digest = hashlib.sha256(f"{values.shape}".encode() + values.tobytes()).digest()
    pixels = picture_format.cut(whole_picture, int.from_bytes(digest[:8], "big"))
    return _Decoded(pixels, digest, values.ndim == 2 or bool((values == values[..., :1]).all()))


class _Progress:
    """How far a packing is: a bar on a terminal, else a line now and then, as in a job's log."""

    def __init__(self, total: int, done: int, show: bool) -> None:
        from tqdm import tqdm

        self._total, self._first, self._done, self._show = total, done, done, show
        disable = None if show else True
        self._bar = tqdm(desc="packing pictures", total=total, initial=done, unit="img", disable=disable)
        self._started = self._reported = time.monotonic()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self) -> None:
        self._done += 1
        self._bar.update()

    def time_to_report(self) -> bool:
        """Whether some seconds have passed since this was last the case; says how far it is where no bar does."""
        now = time.monotonic()
        if now - self._reported < _REPORT_SECONDS:
            return False
        self._reported = now
        if self._show and self._bar.disable:
            left = (now - self._started) * (self._total - self._done) / (self._done - self._first)
            say(f"packing pictures: {self._done:,} of {self._total:,}, about {left:.0f} s to go; they are kept")
        return True
