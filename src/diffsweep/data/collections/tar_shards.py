"""Tar files as webdataset has them: a key is a picture, its class and its caption."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

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
        plain = _Unpacked(path) if path.suffix.lower() in (".gz", ".tgz") else path
        with plain.members() if isinstance(plain, _Unpacked) else tarfile.open(plain) as archive:
            members = [
                (info.name.removeprefix("./"), info) for info in archive if info.isfile() and info.size <= LARGEST_FILE
            ]
            beside: dict[str, dict[str, str]] = {}
            for name, info in members:
                key, suffix = _split_key(name)
                if suffix in (".cls", ".txt", ".json", ".caption"):
                    stream = archive.extractfile(info)
                    beside.setdefault(key, {})[suffix] = as_text(stream.read()) if stream is not None else ""
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        # tarfile lists what each of its ways of opening said.
        reason = one_line(error).split(": - method")[0]
        raise ValueError(f"{path} is no tar archive that can be read ({reason})") from error
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
        found.append(Picture(f"{prefix}{name}", _reader(plain, info), label, caption, split))
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


def _reader(plain: Path | _Unpacked, info: tarfile.TarInfo) -> Callable[[], bytes]:
    # Where the bytes of a member lie is known, so threads need not share a handle.
    def read() -> bytes:
        if isinstance(plain, _Unpacked):
            return plain.read(info.offset_data, info.size)
        with plain.open("rb") as stream:
            stream.seek(info.offset_data)
            return stream.read(info.size)

    return read


class _Unpacked:
    """A compressed tar, unpacked into a file without a name: of a compressed one no member can be read by its place."""

    def __init__(self, path: Path) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it is there as long as a picture of it
        room = shutil.disk_usage(tempfile.gettempdir()).free // 2
        with gzip.open(path) as packed:
            while part := packed.read(2**20):
                self._file.write(part)
                room -= len(part)
                if room < 0:
                    raise ValueError(f"unpacked it takes more than half of what is free in {tempfile.gettempdir()}")
        self._file.flush()

    def members(self) -> tarfile.TarFile:
        """The archive, to be listed."""
        self._file.seek(0)
        return tarfile.open(fileobj=self._file)

    def read(self, start: int, size: int) -> bytes:
        """Some of its bytes; threads may ask at once."""
        return os.pread(self._file.fileno(), size, start)
