"""Folders and zips: classes by subfolder, and descriptions in files beside the pictures."""

from __future__ import annotations

import csv
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

from diffsweep.data.collections.picture import (
    CAPTIONS,
    LABELS,
    LARGEST_FILE,
    SPLITS,
    SUFFIXES,
    Picture,
    Split,
    as_text,
    is_hidden,
    one_line,
    printable,
    suffix,
    version,
)


def described(
    names: Iterable[str], read: Callable[[str], bytes], suffixes: Collection[str] = SUFFIXES
) -> list[Picture]:
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
    folders = {name: _class_folder(name, top, splits) for name in shown}
    labels: dict[str, str | None] = dict.fromkeys(shown)
    if all(folders.values()) and len(set(folders.values())) > 1:
        labels = dict(folders)
    captions = {
        name: as_text(beside(other)) for name in shown if (other := f"{name.rpartition('.')[0]}.txt") in set(names)
    }
    for name in names:
        base = name.rpartition("/")[2]
        if base == "dataset.json" and name == f"{top}dataset.json":
            given = _edm_labels(name, beside(name), top)
            if unknown := sorted(given.keys() - labels.keys()):
                raise ValueError(f"{name} describes {printable(unknown[0])}, which is not there")
            labels = dict.fromkeys(shown) | given
        elif base in ("metadata.jsonl", "metadata.csv"):
            for row in _rows(name, beside(name)):
                _add_row(name, row, labels, captions)
    return [
        Picture(name, lambda name=name: read(name), labels.get(name), captions.get(name), splits.get(name))
        for name in shown
    ]


def _common_folder(names: list[str]) -> str:
    """The folders in which everything lies, with a slash at the end: archives often have one that says nothing."""
    common: list[str] = []
    for parts in zip(*(name.split("/")[:-1] for name in names)):  # noqa: B905 - as deep as the least deep lies
        if len(set(parts)) > 1 or parts[0].lower() in SPLITS:
            break
        common.append(parts[0])
    return "".join(f"{part}/" for part in common)


def _given_splits(names: list[str], top: str) -> dict[str, Split]:
    splits: dict[str, Split] = {}
    for name in names:
        if (split := SPLITS.get(name[len(top) :].split("/")[0].lower())) is not None:
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


def _add_row(place: str, row: Mapping[str, Any], labels: dict[str, str | None], captions: dict[str, str]) -> None:
    file = row.get("file_name")
    if not isinstance(file, str):
        raise ValueError(f"{place} has a row without file_name: {str(dict(row))[:80]}")
    name = f"{place.rpartition('/')[0]}/{file}".lstrip("/")
    if name not in labels:
        raise ValueError(f"{place} describes {file}, which is not there")
    label = next((row[key] for key in LABELS if row.get(key) not in (None, "")), None)
    caption = next((row[key] for key in CAPTIONS if row.get(key) not in (None, "")), None)
    if label is not None:
        labels[name] = str(label)
    if caption is not None:
        captions[name] = str(caption)


def of_zip(path: Path, suffixes: Collection[str] = SUFFIXES) -> list[Picture]:
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
