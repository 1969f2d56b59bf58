"""Tar files as webdataset has them: a key is a picture, its class and its caption."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

from diffsweep.data.collections.described import described
from diffsweep.data.collections.picture import (
    CAPTIONS,
    LABELS,
    LARGEST_FILE,
    SPLITS,
    SUFFIXES,
    Picture,
    as_text,
    first_value,
    is_hidden,
    json_object,
    one_line,
)


def of_tar(path: Path, prefix: str = "") -> list[Picture]:
    """The pictures of a tar, their names begun by `prefix`. Raises ValueError if it cannot be read."""
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
                    beside.setdefault(key, {})[suffix] = as_text(stream.read()) if stream is not None else ""
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} is no tar archive that can be read ({one_line(error)})") from error
    split = SPLITS.get(re.split(r"[-_.]", path.name)[0].lower()) if prefix else None
    found = []
    for name, info in members:
        key, suffix = _split_key(name)
        if suffix not in SUFFIXES or is_hidden(name):
            continue
        more = beside.get(key, {})
        described = json_object(more.get(".json"))
        label = more.get(".cls") or first_value(described, LABELS)
        caption = more.get(".txt") or more.get(".caption") or first_value(described, CAPTIONS)
        found.append(Picture(f"{prefix}{name}", _tar_reader(path, info), label, caption, split))
    if all(picture.label is None for picture in found):
        return _labelled_by_folder(found, prefix)
    return found


def _labelled_by_folder(found: list[Picture], prefix: str) -> list[Picture]:
    names = {picture.name: picture.name.removeprefix(prefix) for picture in found}
    by_name = {picture.name: picture for picture in described(names.values(), lambda name: b"")}
    return [
        replace(one, label=by_name[names[one.name]].label, split=one.split or by_name[names[one.name]].split)
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
