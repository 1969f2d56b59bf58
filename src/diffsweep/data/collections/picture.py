"""A picture of a collection, and what all kinds of collections share: suffixes, splits, keys of descriptions."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.files import read_bytes
from diffsweep.settings import Split

if TYPE_CHECKING:
    import numpy as np


SUFFIXES = frozenset(
    ".png .jpg .jpeg .webp .bmp .gif .tif .tiff .avif .ppm .pgm .pbm .pnm .jp2 .tga .ico".split()  # noqa: SIM905
)


SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "test": "test",
    "val": "test",
    "valid": "test",
    "validation": "test",
}


CAPTIONS = ("text", "caption")


LABELS = ("label", "labels", "class", "fine_label")


# A single picture file is never this large; an entry of an archive that says so may be a bomb.
LARGEST_FILE = 2**30


@dataclass(frozen=True, slots=True)
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


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts img2 before img10."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), "") if part.isdigit() and part.isascii() else (1, 0, part) for part in parts if part]


def suffix(name: str) -> str:
    """The suffix of a file's name, in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - as above


def is_hidden(name: str) -> bool:
    """Whether a file or a folder above it is hidden, or is what macOS adds to archives."""
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def read_file(path: Path) -> bytes:
    """The bytes of a picture's file, or of one that describes some.

    Raises:
        ValueError: for one that is larger than any picture.
        OSError: if it cannot be read, or is no file: a pipe would be waited for without end.
    """
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise ValueError(f"a file of {size:,} bytes, more than any picture")
    return read_bytes(path)


def as_text(content: bytes) -> str:
    """A small text file's content."""
    return content.decode(errors="replace").strip()


def json_object(text: str | None) -> Mapping[str, Any]:
    """A JSON object, empty if the text is none."""
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def first_value(row: Mapping[str, Any], keys: Iterable[str]) -> str | None:
    """The value of the first of the keys that has one, as text."""
    return next((str(row[key]) for key in keys if row.get(key) not in (None, "")), None)


def one_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def printable(name: str) -> str:
    """A name in one line, as a terminal may show it: a file's name may hold newlines, and bytes that are no text."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in name)


def version(path: Path) -> tuple[int, int]:
    """Size and time of change (ns) of a file, to know whether what was read of it still holds."""
    info = path.stat()
    return info.st_size, info.st_mtime_ns
