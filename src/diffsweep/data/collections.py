"""Collections of pictures as people keep them: a folder, a zip, tar shards, parquet or arrow tables, an array.

Every kind is read into one list of `Picture`; what a picture shows and how it is described come with it.

- Folder or zip: every picture below it. If all lie in subfolders, the first subfolder is the class ("imagefolder" of
  Hugging Face and torchvision). `metadata.jsonl` or `metadata.csv` (columns file_name, label, text) and a .txt file
  beside a picture describe it; `dataset.json` with `labels` (EDM, StyleGAN) has the classes of a zip or folder.
- Tar, or a folder of tars (webdataset): a key is a picture, `KEY.cls` its class, `KEY.txt` its caption, `KEY.json`
  both.
- Parquet or arrow, one file or a folder of them (Hugging Face): columns image, label, text; pyarrow reads them.
- .npz or .npy: uint8 (N, H, W), (N, H, W, C) or (N, C, H, W), with `labels` (N,) beside it.

Folders named train and test (or valid, val, validation) at the top, and such names of tables, are the given splits.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

Split = Literal["train", "test"]

SUFFIXES = frozenset(
    ".png .jpg .jpeg .webp .bmp .gif .tif .tiff .avif .ppm .pgm .pbm .pnm .jp2 .tga .ico".split()  # noqa: SIM905
)
_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "test": "test",
    "val": "test",
    "valid": "test",
    "validation": "test",
}
_CAPTIONS = ("text", "caption")
_LABELS = ("label", "labels", "class", "fine_label")
# A single picture file is never this large; an entry of an archive that says so may be a bomb.
LARGEST_FILE = 2**30


@dataclass(frozen=True)
class Picture:
    """One picture of a collection, not read so far.

    Attributes:
        name: its path in the collection, with "/".
        content: gives its file's bytes, or its pixels as uint8 (H, W, C).
        label: what it shows, as text; None if that is not known.
        caption: its description; None if it has none.
        split: the split that it was given; None if it was given none.
    """

    name: str
    content: Callable[[], bytes | np.ndarray]
    label: str | None = None
    caption: str | None = None
    split: Split | None = None


def stamp(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of change (ns) of every file of a collection: whether anything changed costs a stat each.

    Raises:
        ValueError: if there is nothing at `path`.
        OSError: for a folder that may not be read.
    """
    if not path.exists():
        raise ValueError(f"there is no file or folder {path}")
    return [(name, info.st_size, info.st_mtime_ns) for name, info in _files(path)]


def pictures(path: Path) -> list[Picture]:
    """All pictures of a collection, in the natural order of their names.

    Raises:
        ValueError: in one line, for what is no such collection, or descriptions that cannot be understood.
        OSError: for what may not be read.
    """
    if not path.exists():
        raise ValueError(f"there is no file or folder {path}")
    found = _of_folder(path) if path.is_dir() else _of_file(path)
    if not found:
        kinds = "pictures, tar shards, parquet or arrow tables" if path.is_dir() else "pictures"
        raise ValueError(f"{path} holds no {kinds}: see docs/data.md for what is read")
    return sorted(found, key=lambda picture: natural(picture.name))


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts img2 before img10."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), "") if part.isdigit() and part.isascii() else (1, 0, part) for part in parts if part]


# --- files ----------------------------------------------------------------------------------------------------------


def _files(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every file of a folder by its relative path, or the file itself; hidden ones and those of macOS are left out."""
    if not path.is_dir():
        yield path.name, path.stat()
        return
    waiting = [""]
    seen: set[tuple[int, int]] = set()
    while waiting:
        folder = waiting.pop()
        place = os.stat(path / folder)  # noqa: PTH116 - a Path for each of a million files costs a minute
        if (place.st_dev, place.st_ino) in seen:
            # A link to a folder above: without this the walk would never end.
            continue
        seen.add((place.st_dev, place.st_ino))
        with os.scandir(path / folder) as entries:
            for entry in entries:
                if entry.name.startswith((".", "__MACOSX")) or entry.name in ("Thumbs.db", "desktop.ini"):
                    continue
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir():
                    waiting.append(name)
                    continue
                try:
                    yield name, entry.stat()
                except FileNotFoundError:
                    # A link to nowhere: it is listed, and reading it says what is wrong.
                    yield name, entry.stat(follow_symlinks=False)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - as above


def _of_folder(path: Path) -> list[Picture]:
    names = [name for name, _ in _files(path)]
    kinds = {_suffix(name) for name in names}
    if kinds & SUFFIXES:
        return _described(names, lambda name: (path / name).read_bytes())
    tables = [name for name in names if _suffix(name) in (".parquet", ".arrow")]
    if tables:
        return [one for name in tables for one in _of_table(path / name, name)]
    return [one for name in names if _suffix(name) == ".tar" for one in _of_tar(path / name, f"{name}/")]


def _of_file(path: Path) -> list[Picture]:
    readers: dict[str, Callable[[Path], list[Picture]]] = {
        ".zip": _of_zip,
        ".tar": _of_tar,
        ".gz": _of_tar,
        ".tgz": _of_tar,
        ".parquet": _of_table,
        ".arrow": _of_table,
        ".npz": _of_array,
        ".npy": _of_array,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        one = f" (to read a single picture, give its folder {path.parent})" if _suffix(path.name) in SUFFIXES else ""
        raise ValueError(f"{path} is no folder, and none of {', '.join(readers)}{one}")
    return reader(path)


def _of_zip(path: Path) -> list[Picture]:
    try:
        archive = _zip(str(path), *_version(path))
        members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise ValueError(f"{path} is no zip archive that can be read ({_line(error)})") from error

    def read(name: str) -> bytes:
        info = members[name]
        if info.file_size > LARGEST_FILE:
            raise ValueError(f"an entry of {info.file_size:,} bytes, more than any picture")
        if info.flag_bits & 1:
            raise ValueError("encrypted")
        with archive.open(info) as stream:
            return stream.read(LARGEST_FILE)

    return _described([name for name in members if not _is_hidden(name)], read)


@lru_cache(maxsize=4)
def _zip(path: str, size: int, modified: int) -> zipfile.ZipFile:
    # ZipFile locks around each read, so the threads that decode may share one.
    return zipfile.ZipFile(path)


def _version(path: Path) -> tuple[int, int]:
    info = path.stat()
    return info.st_size, info.st_mtime_ns


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


# --- folders and zips: classes by folder, descriptions in files beside the pictures -------------------------------


def _described(names: Iterable[str], read: Callable[[str], bytes]) -> list[Picture]:
    names = list(names)
    shown = [name for name in names if _suffix(name) in SUFFIXES]
    top = _common_folder(shown)
    splits = _given_splits(shown, top)
    folders = {name: _class_folder(name, top, splits) for name in shown}
    labels: dict[str, str | None] = dict.fromkeys(shown)
    if all(folders.values()) and len(set(folders.values())) > 1:
        labels = dict(folders)
    captions = {name: _text(read(other)) for name in shown if (other := f"{name.rpartition('.')[0]}.txt") in set(names)}
    for name in names:
        base = name.rpartition("/")[2]
        if base == "dataset.json" and name == f"{top}dataset.json":
            labels = dict.fromkeys(shown) | _edm_labels(name, read(name), top)
        elif base in ("metadata.jsonl", "metadata.csv"):
            for row in _rows(name, read(name)):
                _add_row(name, row, labels, captions)
    return [
        Picture(name, lambda name=name: read(name), labels.get(name), captions.get(name), splits.get(name))
        for name in shown
    ]


def _common_folder(names: list[str]) -> str:
    """The folders in which everything lies, with a slash at the end: archives often have one that says nothing."""
    common: list[str] = []
    for parts in zip(*(name.split("/")[:-1] for name in names)):  # noqa: B905 - as deep as the least deep lies
        if len(set(parts)) > 1 or parts[0].lower() in _SPLITS:
            break
        common.append(parts[0])
    return "".join(f"{part}/" for part in common)


def _given_splits(names: list[str], top: str) -> dict[str, Split]:
    splits: dict[str, Split] = {}
    for name in names:
        if (split := _SPLITS.get(name[len(top) :].split("/")[0].lower())) is not None:
            splits[name] = split
    if len(splits) == len(names) and set(splits.values()) == {"train", "test"}:
        return splits
    return {}


def _class_folder(name: str, top: str, splits: Mapping[str, Split]) -> str | None:
    parts = name[len(top) :].split("/")[1 if name in splits else 0 : -1]
    return parts[0] if parts else None


def _edm_labels(name: str, content: bytes, top: str) -> dict[str, str | None]:
    try:
        labels = json.loads(content).get("labels") or []
        return {f"{top}{picture}": None if label is None else str(label) for picture, label in labels}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{name} is not {{'labels': [[name, class], ...]}} ({_line(error)})") from error


def _rows(name: str, content: bytes) -> Iterator[dict[str, Any]]:
    try:
        text = content.decode()
        if name.endswith(".csv"):
            yield from csv.DictReader(io.StringIO(text))
            return
        for line in filter(str.strip, text.splitlines()):
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"a line is no object: {line[:60]}")
            yield row
    except (ValueError, RecursionError, csv.Error) as error:
        raise ValueError(f"{name} cannot be read ({_line(error)})") from error


def _add_row(place: str, row: Mapping[str, Any], labels: dict[str, str | None], captions: dict[str, str]) -> None:
    file = row.get("file_name")
    if not isinstance(file, str):
        raise ValueError(f"{place} has a row without file_name: {str(dict(row))[:80]}")
    name = f"{place.rpartition('/')[0]}/{file}".lstrip("/")
    if name not in labels:
        raise ValueError(f"{place} describes {file}, which is not there")
    label = next((row[key] for key in _LABELS if row.get(key) not in (None, "")), None)
    caption = next((row[key] for key in _CAPTIONS if row.get(key) not in (None, "")), None)
    if label is not None:
        labels[name] = str(label)
    if caption is not None:
        captions[name] = str(caption)


def _text(content: bytes) -> str:
    return content.decode(errors="replace").strip()


# --- tar shards -----------------------------------------------------------------------------------------------------


def _of_tar(path: Path, prefix: str = "") -> list[Picture]:
    try:
        with tarfile.open(path) as archive:
            members = [
                (info.name.removeprefix("./"), info) for info in archive if info.isfile() and info.size <= LARGEST_FILE
            ]
            beside: dict[str, dict[str, str]] = {}
            for name, info in members:
                key, suffix = _split_key(name)
                if suffix in (".cls", ".txt", ".json", ".caption"):
                    stream = archive.extractfile(info)
                    beside.setdefault(key, {})[suffix] = _text(stream.read()) if stream is not None else ""
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} is no tar archive that can be read ({_line(error)})") from error
    split = _SPLITS.get(re.split(r"[-_.]", path.name)[0].lower()) if prefix else None
    found = []
    for name, info in members:
        key, suffix = _split_key(name)
        if suffix not in SUFFIXES or _is_hidden(name):
            continue
        more = beside.get(key, {})
        described = _json_object(more.get(".json"))
        label = more.get(".cls") or _first(described, _LABELS)
        caption = more.get(".txt") or more.get(".caption") or _first(described, _CAPTIONS)
        found.append(Picture(f"{prefix}{name}", _tar_reader(path, info), label, caption, split))
    if all(picture.label is None for picture in found):
        return _labelled_by_folder(found, prefix)
    return found


def _labelled_by_folder(found: list[Picture], prefix: str) -> list[Picture]:
    names = {picture.name: picture.name.removeprefix(prefix) for picture in found}
    described = {picture.name: picture for picture in _described(names.values(), lambda name: b"")}
    return [
        replace(one, label=described[names[one.name]].label, split=one.split or described[names[one.name]].split)
        for one in found
    ]


def _split_key(name: str) -> tuple[str, str]:
    """Key and suffix as webdataset has them: the key ends at the first dot of the file's own name."""
    folder, _, base = name.rpartition("/")
    key, dot, suffix = base.partition(".")
    return f"{folder}/{key}", f"{dot}{suffix.rpartition('.')[2]}".lower()


def _tar_reader(path: Path, info: tarfile.TarInfo) -> Callable[[], bytes]:
    compressed = path.suffix.lower() in (".gz", ".tgz")

    def read() -> bytes:
        if compressed:
            with tarfile.open(path) as archive:
                stream = archive.extractfile(info)
                return stream.read() if stream is not None else b""
        # Where the bytes of a plain tar's member lie is known, so threads need not share a handle.
        with path.open("rb") as stream:
            stream.seek(info.offset_data)
            return stream.read(info.size)

    return read


def _json_object(text: str | None) -> Mapping[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _first(row: Mapping[str, Any], keys: Iterable[str]) -> str | None:
    return next((str(row[key]) for key in keys if row.get(key) not in (None, "")), None)


# --- tables ---------------------------------------------------------------------------------------------------------


def _of_table(path: Path, name: str | None = None) -> list[Picture]:
    try:
        import pyarrow
        from pyarrow import ipc, parquet
    except ImportError as error:
        raise ValueError(f"reading {path} needs pyarrow: pip install 'diffsweep[parquet]'") from error
    try:
        if path.suffix.lower() == ".parquet":
            table = parquet.read_table(path, memory_map=True)
        else:
            with pyarrow.memory_map(str(path)) as source:
                try:
                    table = ipc.open_stream(source).read_all()
                except pyarrow.ArrowInvalid:
                    table = ipc.open_file(source).read_all()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no table that can be read ({_line(error)})") from error
    columns = {column.lower(): column for column in table.column_names}
    image = next((columns[key] for key in ("image", "img", "jpg", "png") if key in columns), None)
    if image is None:
        raise ValueError(f"{path} has no column image, but {', '.join(table.column_names) or 'none'}")
    names = _class_names(table.schema.metadata)
    label = next((columns[key] for key in _LABELS if key in columns), None)
    caption = next((columns[key] for key in _CAPTIONS if key in columns), None)
    prefix = name or path.name
    split: Split | None = next((_SPLITS[word] for word in re.split(r"[-_./]", prefix.lower()) if word in _SPLITS), None)
    found = []
    for row in range(table.num_rows):
        known = table[label][row].as_py() if label is not None else None
        text = table[caption][row].as_py() if caption is not None else None
        if isinstance(known, int) and label is not None and label in names and 0 <= known < len(names[label]):
            known = names[label][known]
        found.append(
            Picture(
                f"{prefix}/{row}",
                _cell_reader(table[image], row),
                None if known is None else str(known),
                None if text is None else str(text),
                split,
            )
        )
    return found


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Names of the classes by column, as Hugging Face's `ClassLabel` keeps them in a table's schema."""
    features = _json_object((metadata or {}).get(b"huggingface", b"").decode(errors="replace"))
    columns = (features.get("info") or {}).get("features") or {}
    return {name: about["names"] for name, about in columns.items() if isinstance(about, dict) and "names" in about}


def _cell_reader(column: Any, row: int) -> Callable[[], bytes]:
    def read() -> bytes:
        value = column[row].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise ValueError("a row without the bytes of a picture")
        return content

    return read


# --- arrays ---------------------------------------------------------------------------------------------------------


def _of_array(path: Path) -> list[Picture]:
    import numpy as np

    try:
        loaded: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} holds no array that can be read ({_line(error)})") from error
    labels = None
    if path.suffix.lower() == ".npz":
        arrays = [name for name in loaded.files if name not in ("labels", "arr_1", "label", "y")]
        chosen = next((name for name in ("arr_0", "images", "x") if name in arrays), arrays[0] if arrays else None)
        if chosen is None:
            raise ValueError(f"{path} holds no images, but {', '.join(loaded.files) or 'nothing'}")
        labels = next((loaded[name] for name in ("labels", "arr_1", "label", "y") if name in loaded.files), None)
        loaded = _array_of(path, loaded, chosen)
    x = _channels_last(path, loaded)
    if labels is not None and labels.shape != (len(x),):
        raise ValueError(f"{path} has labels of shape {labels.shape} for {len(x):,} images: they must be ({len(x)},)")
    return [
        Picture(f"{i:08d}", lambda i=i: np.asarray(x[i]), None if labels is None else str(labels[i]))
        for i in range(len(x))
    ]


def _array_of(path: Path, loaded: Any, name: str) -> Any:
    try:
        return loaded[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, MemoryError) as error:
        raise ValueError(f"{path} cannot be read ({_line(error)})") from error


def _channels_last(path: Path, x: Any) -> Any:
    """The array as (N, H, W, C)."""
    import numpy as np

    if x.dtype != np.uint8:
        raise ValueError(f"{path} holds {x.dtype} {x.shape}: images must be uint8 of values 0..255; convert them first")
    if x.ndim == 3:
        return x[..., None]
    if x.ndim == 4 and x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        return x
    if x.ndim == 4 and x.shape[1] in (1, 3, 4) and x.shape[3] not in (1, 3, 4):
        return np.moveaxis(x, 1, 3)
    raise ValueError(f"{path} holds {x.shape}: save images as (N, H, W), (N, H, W, C) or (N, C, H, W), C 1, 3 or 4")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
