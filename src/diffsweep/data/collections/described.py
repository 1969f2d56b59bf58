"""Folders and zips: classes by subfolder, and descriptions in files beside the pictures."""

from __future__ import annotations

import csv
import io
import json
import sys
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

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
    one_line,
    printable,
    suffix,
    version,
)
from diffsweep.settings import Split


def described(names: Iterable[str], read: Callable[[str], bytes], suffixes: Collection[str] = SUFFIXES) -> Members:
    """Files of these suffixes among `names`, with what their folders and the files beside them say of them."""
    names = list(names)

    def beside(name: str) -> bytes:
        try:
            return read(name)
        except (OSError, ValueError) as error:
            raise ValueError(f"{printable(name)} cannot be read ({one_line(error)})") from error

    shown = [name for name in names if suffix(name) in suffixes]
    top = _common_folder(shown)
    splits = _given_splits(shown, top)
    folders = [_class_folder(name, top, split) for name, split in zip(shown, splits, strict=True)]
    labels: list[str | None] = folders if all(folders) and len(set(folders)) > 1 else [None] * len(shown)
    texts = {name for name in names if name.endswith(".txt")}
    captions: list[str | None] = [
        as_text(beside(other)) if (other := f"{name.rpartition('.')[0]}.txt") in texts else None for name in shown
    ]
    descriptions = [name for name in names if name.rpartition("/")[2] in ("metadata.jsonl", "metadata.csv")]
    edm = [name for name in names if name == f"{top}dataset.json"]
    # Of a name that an archive has twice the last counts.
    place_of = {name: place for place, name in enumerate(shown)} if descriptions or edm else {}
    for name in edm:
        labels = [None] * len(shown)
        for picture, label in _edm_labels(name, beside(name), top).items():
            if picture not in place_of:
                raise ValueError(f"{name} describes {printable(picture)}, which is not there")
            labels[place_of[picture]] = label
    for name in descriptions:
        for row in _rows(name, beside(name)):
            place, label, caption = _described_by(name, row, place_of)
            labels[place] = label or labels[place]
            captions[place] = caption or captions[place]
    return Members(shown, lambda place: read(shown[place]), labels, captions, splits)


def _common_folder(names: list[str]) -> str:
    """The folders in which everything lies, with a slash at the end: archives often have one that says nothing."""
    if not names:
        return ""
    # What the first and the last of sorted names begin with, all begin with.
    common: list[str] = []
    for parts in zip(*(name.split("/")[:-1] for name in (min(names), max(names)))):  # noqa: B905 - as deep as the least deep lies
        if len(set(parts)) > 1 or parts[0].lower() in SPLITS:
            break
        common.append(parts[0])
    return "".join(f"{part}/" for part in common)


def _given_splits(names: list[str], top: str) -> list[Split | None]:
    splits: list[Split | None] = [SPLITS.get(name[len(top) :].partition("/")[0].lower()) for name in names]
    return splits if set(splits) == {"train", "test"} else [None] * len(names)


def _class_folder(name: str, top: str, split: Split | None) -> str | None:
    parts = name[len(top) :].split("/")[0 if split is None else 1 : -1]
    return sys.intern(parts[0]) if parts else None


def _edm_labels(name: str, content: bytes, top: str) -> dict[str, str | None]:
    try:
        labels = json.loads(content).get("labels") or []
        return {f"{top}{picture}": None if label is None else str(label) for picture, label in labels}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{name} is not {{'labels': [[name, class], ...]}} ({one_line(error)})") from error


def _rows(name: str, content: bytes) -> Iterator[dict[str, Any]]:
    try:
        text = content.decode("utf-8-sig")
        if name.endswith(".csv"):
            yield from csv.DictReader(io.StringIO(text))
            return
        for line in filter(str.strip, text.splitlines()):
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"a line is no object: {line[:60]}")
            yield row
    except (ValueError, RecursionError, csv.Error) as error:
        raise ValueError(f"{name} cannot be read ({one_line(error)})") from error


def _described_by(file: str, row: Mapping[str, Any], place_of: Mapping[str, int]) -> tuple[int, str | None, str | None]:
    """Of a row of metadata: the place of what it describes, its label and its caption."""
    base = row.get("file_name")
    if not isinstance(base, str):
        raise ValueError(f"{file} has a row without file_name: {str(dict(row))[:80]}")
    name = f"{file.rpartition('/')[0]}/{base}".lstrip("/")
    if name not in place_of:
        raise ValueError(f"{file} describes {base}, which is not there")
    label, caption = first_value(row, LABELS), first_value(row, CAPTIONS)
    return place_of[name], None if label is None else sys.intern(label), caption


def of_zip(path: Path, suffixes: Collection[str] = SUFFIXES) -> Members:
    """The pictures of a zip, or what else has these suffixes. Raises ValueError if it cannot be read."""
    try:
        archive = _zip(str(path), *version(path))
        members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise ValueError(f"{path} is no zip archive that can be read ({one_line(error)})") from error

    def read(name: str) -> bytes:
        info = members[name]
        if info.file_size > LARGEST_FILE:
            raise ValueError(f"an entry of {info.file_size:,} bytes, more than any picture")
        if info.flag_bits & 1:
            raise ValueError("encrypted")
        try:
            with archive.open(info) as stream:
                return stream.read(LARGEST_FILE)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
            raise ValueError(one_line(error)) from error

    return described([name for name in members if not is_hidden(name)], read, suffixes)


@lru_cache(maxsize=4)
def _zip(path: str, size: int, modified: int) -> zipfile.ZipFile:
    # ZipFile locks around each read, so the threads that decode may share one.
    return zipfile.ZipFile(path)
