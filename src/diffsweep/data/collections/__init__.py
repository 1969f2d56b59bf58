"""Collections of pictures as people keep them: a folder, a zip, tar shards, parquet or arrow tables, an array.

Every kind is read into `Members`; what a picture shows and how it is described come with it.

- Folder or zip: every picture below it. If all lie in subfolders, the first subfolder is the class ("imagefolder" of
  Hugging Face and torchvision). `metadata.jsonl` or `metadata.csv` (columns file_name, label, text) and a .txt file
  beside a picture describe it; `dataset.json` with `labels` (EDM, StyleGAN) has the classes of a zip or folder.
- Tar, or a folder of tars (webdataset): a key is a picture, `KEY.cls` its class, `KEY.txt` its caption, `KEY.json`
  both.
- Parquet or arrow, one file or a folder of them (Hugging Face, `save_to_disk` too): columns image, label, text.
- CelebA's and emoji-datasource's own files: see `recipes`.
- `hf://OWNER/NAME`: a dataset of Hugging Face's hub, in any of these forms (see `hub.py`).
- .npz or .npy: uint8 (N, H, W), (N, H, W, C) or (N, C, H, W), with `labels` (N,) beside it.

Folders named train and test (or valid, val, validation) at the top, and such names of tables, are the given splits.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from diffsweep.data.collections.arrays import of_array
from diffsweep.data.collections.described import described, of_zip
from diffsweep.data.collections.hub import collection
from diffsweep.data.collections.members import Member, Members
from diffsweep.data.collections.names import SUFFIXES, natural, read_file, suffix
from diffsweep.data.collections.recipes import how_to_get, is_celeba, is_emoji, of_celeba, of_emoji
from diffsweep.data.collections.tables import of_table
from diffsweep.data.collections.tar_shards import of_tar

__all__ = ["Member", "Members", "collection", "file_names", "natural", "pictures", "stamp"]


# What systems put beside files.
_NO_DATA = frozenset(("Thumbs.db", "desktop.ini"))


def stamp(path: Path) -> str:
    """A hash of name, size and time of change of every file of a collection: another if any is, for a stat each.

    Raises:
        ValueError: if there is nothing at `path`.
        OSError: for a folder that may not be read.
    """
    if not path.exists():
        raise ValueError(f"there is no file or folder {path}{how_to_get(path)}")
    sha = hashlib.sha256()
    lines = sorted([f"{name}\0{info.st_size}\0{info.st_mtime_ns}\n" for name, info in _files(path)])
    for start in range(0, len(lines), 1024):
        sha.update("".join(lines[start : start + 1024]).encode(errors="surrogateescape"))
    return sha.hexdigest()


def file_names(folder: Path) -> list[str]:
    """Every file below a folder by its relative path, but hidden ones. Raises OSError for what may not be read."""
    return [name for name, _ in _files(folder)]


def pictures(path: Path) -> Members:
    """All pictures of a collection, in the natural order of their names.

    Raises:
        ValueError: in one line, for what is no such collection, or descriptions that cannot be understood.
        OSError: for what may not be read.
    """
    if not path.exists():
        raise ValueError(f"there is no file or folder {path}{how_to_get(path)}")
    found = _of_folder(path) if path.is_dir() else _of_file(path)
    if not found:
        kinds = "pictures, tar shards, parquet or arrow tables" if path.is_dir() else "pictures"
        raise ValueError(f"{path} holds no {kinds}: see docs/data.md for what is read")
    return found.sorted()


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
                name = entry.name
                if name[0] == "." or name in _NO_DATA or name.startswith("__MACOSX"):
                    continue
                name = f"{folder}/{name}" if folder else name
                try:
                    if entry.is_dir():
                        waiting.append(name)
                    else:
                        yield name, entry.stat()
                except OSError:
                    # A link to nowhere, or to itself: it is listed, and reading it says what is wrong.
                    yield name, entry.stat(follow_symlinks=False)


def _of_folder(path: Path) -> Members:
    if is_celeba(path):
        return of_celeba(path)
    if is_emoji(path):
        return of_emoji(path)
    names = [name for name, _ in _files(path)]
    kinds = {suffix(name) for name in names}
    if kinds & SUFFIXES:
        return described(names, lambda name: read_file(path / name))
    # What `datasets` computes beside a dataset that is saved to disk are no data.
    tables = [
        name
        for name in names
        if suffix(name) in (".parquet", ".arrow") and not name.rpartition("/")[2].startswith(("cache-", "tmp"))
    ]
    if tables:
        return Members.joined([of_table(path / name, name) for name in tables])
    return Members.joined([of_tar(path / name, f"{name}/") for name in names if suffix(name) == ".tar"])


def _of_file(path: Path) -> Members:
    readers: dict[str, Callable[[Path], Members]] = {
        ".zip": of_zip,
        ".tar": of_tar,
        ".gz": of_tar,
        ".tgz": of_tar,
        ".parquet": of_table,
        ".arrow": of_table,
        ".npz": of_array,
        ".npy": of_array,
    }
    if not path.is_file():
        raise ValueError(f"{path} is neither a file nor a folder")
    reader = readers.get(path.suffix.lower())
    if reader is None:
        one = f" (to read a single picture, give its folder {path.parent})" if suffix(path.name) in SUFFIXES else ""
        raise ValueError(f"{path} is no folder, and none of {', '.join(readers)}{one}")
    return reader(path)
