"""Tar files as webdataset has them: a key is a picture, its class and its caption."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import sys
import tarfile
import tempfile
import zlib
from array import array
from collections.abc import Callable
from pathlib import Path

from diffsweep.data.collections.described import described
from diffsweep.data.collections.members import Members
from diffsweep.data.collections.names import (
    CAPTIONS,
    LABELS,
    LARGEST_FILE,
    SPLITS,
    SUFFIXES,
    as_text,
    first_value,
    is_hidden,
    json_object,
    one_line,
)
from diffsweep.settings import Split


def of_tar(path: Path, prefix: str = "") -> Members:
    """The pictures of a tar, their names begun by `prefix`. Raises ValueError if it cannot be read."""
    names: list[str] = []
    # Where the bytes of a member lie is known, so threads need not share a handle.
    starts, sizes = array("q"), array("q")
    beside: dict[str, str] = {}
    try:
        plain = _Unpacked(path) if path.suffix.lower() in (".gz", ".tgz") else path
        with plain.members() if isinstance(plain, _Unpacked) else tarfile.open(plain) as archive:
            for info in archive:
                # What tarfile keeps of a member takes more than a thousand bytes.
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue]
                if not info.isfile() or info.size > LARGEST_FILE:
                    continue
                name = info.name.removeprefix("./")
                key, suffix = _split_key(name)
                if suffix in (".cls", ".txt", ".json", ".caption"):
                    stream = archive.extractfile(info)
                    beside[f"{key}{suffix}"] = sys.intern(as_text(stream.read())) if stream is not None else ""
                elif suffix in SUFFIXES and not is_hidden(name):
                    names.append(name)
                    starts.append(info.offset_data)
                    sizes.append(info.size)
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        # tarfile lists what each of its ways of opening said.
        reason = one_line(error).split(": - method")[0]
        raise ValueError(f"{path} is no tar archive that can be read ({reason})") from error
    split = SPLITS.get(re.split(r"[-_.]", path.name)[0].lower()) if prefix else None
    labels: list[str | None] = []
    captions: list[str | None] = []
    for name in names:
        key, _ = _split_key(name)
        about = json_object(beside.get(f"{key}.json"))
        label = beside.get(f"{key}.cls") or first_value(about, LABELS)
        labels.append(None if label is None else sys.intern(label))
        captions.append(beside.get(f"{key}.txt") or beside.get(f"{key}.caption") or first_value(about, CAPTIONS))
    splits: list[Split | None] = [split] * len(names)
    by_folder = described(names, lambda name: b"") if not any(labels) else None
    return Members(
        [f"{prefix}{name}" for name in names],
        _reader(plain, starts, sizes),
        labels if by_folder is None else by_folder.labels,
        captions,
        splits if split is not None or by_folder is None else by_folder.splits,
    )


def _split_key(name: str) -> tuple[str, str]:
    """Key and suffix as webdataset has them: the key ends at the first dot of the file's own name."""
    folder, _, base = name.rpartition("/")
    key, dot, suffix = base.partition(".")
    return f"{folder}/{key}", f"{dot}{suffix.rpartition('.')[2]}".lower()


def _reader(plain: Path | _Unpacked, starts: array[int], sizes: array[int]) -> Callable[[int], bytes]:
    def read(place: int) -> bytes:
        if isinstance(plain, _Unpacked):
            return plain.read(starts[place], sizes[place])
        with plain.open("rb") as stream:
            stream.seek(starts[place])
            return stream.read(sizes[place])

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
