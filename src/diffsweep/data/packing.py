"""Packing: every member of a collection is decoded once into memory-mapped arrays, named by their content.

    <cache>/<noun>/<content>/       what is packed, see `data.packed`; <noun> is pictures, videos or sounds
    <cache>/<noun>/<stamp>.json     which content a collection has, as long as its files have these sizes and times
    <cache>/<noun>/<place>.npy      the members of the collection at a path when it was last packed, see `Manifest`
    <cache>/<noun>/.work-<place>/   the lease of who packs it, and how far that is

The content is a hash of what is decoded, of classes, captions and splits, whatever their order, names, place or file
format: the same pictures in a zip are the same data. The second look at a collection costs a stat per file.

Of several processes, on any host, one packs, and the others wait for it. One that is killed leaves what it has decoded,
from which the next goes on. What is held of a member in memory is its name and some numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache, partial
from itertools import groupby
from os import cpu_count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import psutil

from diffsweep.data.collections import Members, collection, natural, stamp
from diffsweep.data.collections.members import outcome, unreadable
from diffsweep.data.collections.names import printable
from diffsweep.data.decoded_members import RESIDENT, DecodedMembers
from diffsweep.data.decoders import Decoded, Decoder
from diffsweep.data.manifest import Manifest
from diffsweep.data.packed import Captions, Packed
from diffsweep.files import atomic, explained, read_json, write_json
from diffsweep.messages import say
from diffsweep.mistakes import BadValue, one_of, share
from diffsweep.settings import SPLITS, Split
from diffsweep.sweep.store.lease import Lease, LeaseLostError
from diffsweep.sweep.store.process import Process

if TYPE_CHECKING:
    import numpy as np

# Of the packed form: raise it when equal files would become other values or splits.
_VERSION = 1
# Members that are decoded at a time: a million waiting results would fill the memory.
_AT_A_TIME = 512
# Seconds between lines about how far it is, where no bar is drawn, and between states that can be gone on from.
_REPORT_SECONDS = 10.0


@dataclass(frozen=True)
class Packing:
    """How a collection becomes a dataset.

    Attributes:
        decoder: what becomes of each member.
        labels: "auto" takes the classes that come with the members; "none" takes none.
        broken: "refuse", or "skip" to leave out what cannot be read.
        test_share: share that is held out, from 0 to below 1, chosen by a hash of the content: the choice stays when
            members are added, and doubles are on one side. Given splits are kept instead.
    """

    decoder: Decoder
    labels: Literal["auto", "none"] = "auto"
    broken: Literal["refuse", "skip"] = "refuse"
    test_share: float = 0.1

    def __post_init__(self) -> None:
        one_of("labels", self.labels, ["auto", "none"])
        one_of("broken", self.broken, ["refuse", "skip"])
        share("test_share", self.test_share, one=False)


def pack(path: Path, packing: Packing, cache: Path, *, show: bool = True) -> Packed:
    """The packed form of the collection at `path`, made if it is not there.

    Args:
        path: of a folder or file, see `data.collections`.
        packing: what becomes of it.
        cache: folder for what is packed.
        show: whether to say how far it is: by a bar on a terminal, else by a line now and then.

    Raises:
        ValueError: in one line, for what is no collection, or has members that cannot be read.
        OSError: for what may not be read.
    """
    return _located(path, packing, cache, show)[0]


def packed_members(path: Path, packing: Packing, cache: Path, split: Split) -> Members:
    """The members of a packed split themselves, in its order, of a decoder that varies; the collection must be there.

    Arguments and errors as `pack`.
    """
    import numpy as np

    packed, stamped = _located(path, packing, cache, True)
    places = np.load(cache / packing.decoder.noun / f"{stamped}.{split}.npy")
    assert len(places) == (packed.train if split == "train" else packed.test)
    return packing.decoder.find(collection(path)).take(places)


def _located(path: Path, packing: Packing, cache: Path, show: bool) -> tuple[Packed, str]:
    """What is packed, and the name of the collection's present state."""
    folder = cache / packing.decoder.noun
    path = collection(path)
    files = stamp(path)
    given: dict[str, Any] = asdict(packing)
    stamped = _hash([_VERSION, str(path.resolve()), given, files])
    packed = _known(folder, stamped)
    if packed is not None:
        return packed, stamped
    # What is decoded does not depend on what becomes of broken members.
    del given["broken"]
    place = _hash([str(path.resolve()), given])
    found = packing.decoder.find(path)

    def waiting(holder: Process | None) -> None:
        say(f"the {packing.decoder.noun} in {path} are being packed by {holder}; waiting for it")

    work = folder / f".work-{place}"
    with Lease(work).acquire(on_wait=waiting) as lease:
        packed = _known(folder, stamped)
        if packed is None:
            decoded = DecodedMembers(work, _hash([_VERSION, files]), len(found))
            packed, order = _Packer(path, packing, folder, found, decoded, lease.still_held, show).pack()
            if packing.decoder.varies:
                _write_places(folder, stamped, order)
            names = [found.names[int(one)] for one in order.places]
            changes = Manifest(folder / f"{place}.npy").replace(names, decoded.digests[order.places])
            if changes:
                others = "these are other data, and other trainings"
                say(f"{path} has changed since it was last packed ({changes}): {others}")
            write_json(
                folder / f"{stamped}.json", {"content": packed.content, "broken": packed.broken, "path": str(path)}
            )
            decoded.remove()
    return packed, stamped


def _write_places(folder: Path, stamped: str, order: _Order) -> None:
    """Keep which member of the collection is which of a split."""
    import numpy as np

    for split in SPLITS:
        with atomic(folder / f"{stamped}.{split}.npy") as temporary, temporary.open("wb") as stream:
            np.save(stream, order.of(split))


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode(errors="surrogateescape")).hexdigest()[:24]


def _known(folder: Path, stamped: str) -> Packed | None:
    known = read_json(folder / f"{stamped}.json")
    packed = None if known is None else Packed.read(folder / str(known.get("content")))
    return None if packed is None or known is None else replace(packed, broken=int(known["broken"]))


@dataclass(frozen=True)
class PackedCollection:
    """The collection of a dataset: where it lies, and what it was when a run was planned.

    Attributes:
        path: as of `pack`.
        packing: as of `pack`.
        cache: as of `pack`.
        content: identity that it must have; None takes what is there.
    """

    path: Path
    packing: Packing
    cache: Path
    content: str | None

    def packed(self) -> Packed:
        """What is packed. Raises ValueError as `pack`, and if the collection is another by now."""
        noun = self.packing.decoder.noun
        if self.content is not None and not self.packing.decoder.varies:
            # Without a look at the collection: on a cluster's node the cache may be all that there is.
            packed = Packed.read(self.cache / noun / self.content)
            if packed is not None:
                return packed
        packed = pack(self.path, self.packing, self.cache)
        if self.content not in (None, packed.content):
            raise ValueError(
                f"the {noun} in {self.path} are no longer those of this run: their content was {self.content} and is "
                f"{packed.content} now"
            )
        return packed

    def members(self, split: Split) -> Members:
        """As `packed_members`."""
        return packed_members(self.path, self.packing, self.cache, split)


@lru_cache(maxsize=16)
def _pack_once(path: Path, packing: Packing, cache: Path) -> Packed:
    # One process sees one state of a collection, however many configs name it.
    return pack(path, packing, cache)


def field_of_packed(kind: type[Decoder], field: str, config: Any) -> Any:
    """What the configuration of a dataset takes from its collection, packing it if that is not done.

    Args:
        kind: of its members.
        field: content, shape, classes or sigma_data.
        config: has path, cache, and the keys of `kind` and of `Packing`.

    Raises:
        ValueError: as `pack`.
    """
    given = {one.name: getattr(config, one.name) for one in fields(kind)}  # pyright: ignore[reportArgumentType]
    try:
        packing = Packing(kind(**given), config.labels, config.broken, config.test_share)
    except BadValue as error:
        raise error.below(str(config._get_full_key(""))) from None
    value = getattr(_pack_once(Path(config.path), packing, Path(config.cache)), field)
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True, eq=False)
class _Order:
    """The members that are packed, in the order of split and content.

    Attributes:
        places: in the list of the collection, int64 (N,).
        labels: of each, int64 (N,).
        held_out: so many from the first on are the split test.
    """

    places: np.ndarray
    labels: np.ndarray
    held_out: int

    def part(self, split: Split) -> slice:
        return slice(self.held_out, None) if split == "train" else slice(self.held_out)

    def of(self, split: Split) -> np.ndarray:
        return self.places[self.part(split)]


@dataclass(frozen=True)
class _Packer:
    """Decodes a collection, brings it into the order of its content, and gives the whole its name.

    Attributes:
        path: of the collection.
        packing: what becomes of it.
        cache: folder of all packed collections of its kind.
        found: the collection's members.
        decoded: what is decoded of them so far.
        held: whether this process may still pack.
        show: as of `pack`.
    """

    path: Path
    packing: Packing
    cache: Path
    found: Members
    decoded: DecodedMembers
    held: Callable[[], bool]
    show: bool

    def pack(self) -> tuple[Packed, _Order]:
        """What is packed, and its members in the order in which it has them."""
        class_names = self._class_names()
        self._decode()
        order = self._order(class_names)
        folder = self.cache / f".packing-{uuid4().hex[:12]}"
        with explained(self.cache):
            folder.mkdir()
            try:
                about = self._write(folder, order, class_names)
                packed = Packed(self.cache / about["content"], **about, broken=len(self.decoded.broken))
                if Packed.read(packed.folder) is None:
                    shutil.rmtree(packed.folder, ignore_errors=True)
                    write_json(folder / "about.json", about)
                    folder.rename(packed.folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        return packed, order

    @property
    def _noun(self) -> str:
        return self.packing.decoder.noun

    def _class_names(self) -> tuple[str, ...]:
        labels = set(self.found.labels) if self.packing.labels == "auto" else set()
        if None in labels and len(labels) > 1:
            raise ValueError(
                f"{self.found.labels.count(None):,} of the {len(self.found):,} {self._noun} in {self.path} have no "
                "class, and the others have: give all of them one, or set dataset.labels=none"
            )
        return tuple(sorted((label for label in labels if label is not None), key=natural))

    def _decode(self) -> None:
        """Decode what is not decoded yet; Pillow and libsndfile do so in threads."""
        state, total = self.decoded, len(self.found)
        progress, threads = _Progress(self._noun, total, state.done, self.show), min(16, cpu_count() or 1)
        with progress, explained(self.cache), ThreadPoolExecutor(threads) as pool:
            for start in range(state.done, total, _AT_A_TIME):
                places = range(start, min(start + _AT_A_TIME, total))
                members = map(self.found.__getitem__, places)
                decoded = pool.map(partial(outcome, use=self.packing.decoder.decode), members)
                for place, one in zip(places, decoded, strict=True):
                    self._keep(place, one)
                    progress.update()
                state.done = places.stop
                if progress.time_to_report():
                    state.save()
                    if not self.held():
                        raise LeaseLostError(f"{self.path} is being packed by another process")
        if state.broken and (self.packing.broken == "refuse" or len(state.broken) == total):
            # With dataset.broken=skip nothing is decoded again.
            state.save()
            what = f"{self._noun} in {self.path}"
            raise unreadable(self.found, state.broken, what, "dataset.broken=skip leaves them out")

    def _keep(self, place: int, one: Decoded | str) -> None:
        if isinstance(one, str):
            self.decoded.broken[place] = one
            return
        first = self.decoded.values
        if first is not None and one.values.shape != first.shape[1:]:
            decoder = self.packing.decoder
            here, there = decoder.size_of(one.values.shape), decoder.size_of(first.shape[1:])
            raise ValueError(
                f"{self.path} holds {self._noun} of different sizes, as {there} and {here} "
                f"({printable(self.found.names[place])}): {decoder.remedy}"
            )
        self.decoded.put(place, one)

    def _order(self, class_names: Sequence[str]) -> _Order:
        """The members that can be read."""
        import numpy as np

        label_of = {name: label for label, name in enumerate(class_names)}
        labels = np.array([label_of.get(label or "", 0) for label in self.found.labels], dtype=np.int64)
        held_out = self.decoded.digests[:, :4].copy().view(">u4")[:, 0] < self.packing.test_share * 2.0**32
        for place, split in enumerate(self.found.splits):
            if split is not None:
                held_out[place] = split == "test"
        places = np.delete(np.arange(len(self.found)), sorted(self.decoded.broken))
        words = np.asarray(self.decoded.digests).view(">u8")[places]
        # By split, test first; hash; label; and place.
        places = places[np.lexsort((labels[places], *words.T[::-1], ~held_out[places]))]
        if any(self.found.captions):
            places = self._by_caption(places, labels, held_out)
        test = int(held_out[places].sum())
        if test == len(places):
            raise ValueError(f"all {test:,} {self._noun} in {self.path} are held out: set dataset.test_share lower")
        return _Order(places, labels[places], test)

    def _by_caption(self, places: np.ndarray, labels: np.ndarray, held_out: np.ndarray) -> np.ndarray:
        """These places, those that are equal but for their captions in the order of these."""
        import numpy as np

        def same(place: int) -> tuple[bool, bytes, int]:
            return bool(held_out[place]), self.decoded.digests[place].tobytes(), int(labels[place])

        groups = (list(group) for _, group in groupby(places.tolist(), same))
        found = (place for group in groups for place in sorted(group, key=lambda one: self.found.captions[one] or ""))
        return np.fromiter(found, dtype=np.int64, count=len(places))

    def _write(self, folder: Path, order: _Order, class_names: Sequence[str]) -> dict[str, Any]:
        """Both splits; what is known of the whole."""
        import numpy as np

        values, decoder = self.decoded.values, self.packing.decoder
        assert values is not None
        one_channel = decoder.merges and bool(self.decoded.alike[order.places].all())
        shape = (1 if one_channel else values.shape[1], *values.shape[2:])
        captions = sum(bool(self.found.captions[place]) for place in order.places.tolist())
        low, high = np.iinfo(values.dtype).min, np.iinfo(values.dtype).max
        histogram = np.zeros(high - low + 1, dtype=np.int64)
        for split in SPLITS:
            here = order.of(split)
            for part in _copied(values, here, folder / f"{split}.npy", shape):
                if split == "train":
                    histogram += np.bincount(part.ravel().astype(np.int64) - low, minlength=len(histogram))
            np.save(folder / f"{split}.labels.npy", order.labels[order.part(split)])
            if captions:
                Captions.write(folder, split, [self.found.captions[place] or "" for place in here.tolist()])
        squares = ((np.arange(low, high + 1) - decoder.zero) / decoder.unit) ** 2
        rms = math.sqrt(float(histogram @ squares) / histogram.sum())
        if not rms:
            raise ValueError(f"all {self._noun} in {self.path} are silent or grey: there is nothing to learn")
        return {
            "content": self._content(order, class_names, one_channel=one_channel, captions=bool(captions)),
            "shape": shape,
            "class_names": class_names,
            "sigma_data": float(f"{rms:.4g}"),
            "train": len(order.places) - order.held_out,
            "test": order.held_out,
            "captions": captions,
        }

    def _content(self, order: _Order, class_names: Sequence[str], *, one_channel: bool, captions: bool) -> str:
        """The name of what is packed: a hash of JSON, fed piece by piece, for a million members make a long text."""
        assert self.decoded.values is not None
        shape = self.decoded.values.shape[1:]
        head = json.dumps([_VERSION, int(one_channel), shape, class_names, *self.packing.decoder.identity])
        sha = hashlib.sha256(f"{head[:-1]}, [".encode(errors="surrogateescape"))
        for i, (place, label) in enumerate(zip(order.places.tolist(), order.labels.tolist(), strict=True)):
            split: Split = "test" if i < order.held_out else "train"
            # Without captions it is as it was before they were packed.
            caption = [self.found.captions[place] or ""] if captions else []
            item = json.dumps([split, self.decoded.digests[place].tobytes().hex(), label, *caption])
            sha.update(f"{', ' if i else ''}{item}".encode())
        sha.update(b"]]")
        return sha.hexdigest()[:16]


def _copied(values: np.ndarray, places: np.ndarray, file: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Write the values at these places, (N, channels, ...), with the first channels of `shape`; gives them in parts.

    They are read by their place in the file: of a mapped one that is read here and there, pages stay in memory that
    nobody has asked for.

    Args:
        values: mapped from a file.
        places: of some of them, int64 (N,).
        file: npy, to be written.
        shape: of each, as it is written.
    """
    import numpy as np

    assert isinstance(values, np.memmap)
    values.flush()
    _warm(Path(str(values.filename)))
    size = values[0].nbytes
    step = max(1, RESIDENT // 32 // size)
    with Path(str(values.filename)).open("rb", buffering=0) as source, file.open("wb") as target:
        header = {"descr": np.lib.format.dtype_to_descr(values.dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(target, {**header, "shape": (len(places), *shape)})
        for start in range(0, len(places), step):
            offsets = (values.offset + places[start : start + step] * size).tolist()
            content = b"".join([os.pread(source.fileno(), size, offset) for offset in offsets])
            part = np.frombuffer(content, values.dtype).reshape(-1, *values.shape[1:])[:, : shape[0]]
            target.write(np.ascontiguousarray(part).data)
            yield part


def _warm(file: Path) -> None:
    """Read a file in its order, if it fits into the memory that is free: what follows would read it here and there."""
    if file.stat().st_size < psutil.virtual_memory().available:
        with file.open("rb", buffering=0) as stream:
            while stream.read(2**24):
                pass


class _Progress:
    """How far a packing is: a bar on a terminal, else a line now and then, as in a job's log."""

    def __init__(self, noun: str, total: int, done: int, show: bool) -> None:
        from tqdm import tqdm

        self._title, self._total, self._first, self._done, self._show = f"packing {noun}", total, done, done, show
        disable = None if show else True
        self._bar = tqdm(desc=self._title, total=total, initial=done, disable=disable)
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
            say(f"{self._title}: {self._done:,} of {self._total:,}, about {left:.0f} s to go; they are kept")
        return True
