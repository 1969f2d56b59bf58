"""What names, files and descriptions of all kinds of collections share: suffixes, splits, keys of labels."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from diffsweep.files import read_bytes
from diffsweep.settings import Split

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


def natural(name: str) -> str:
    """A key that sorts img2 before img10: a number is written as the count of its digits, and the digits."""

    def key(found: re.Match[str]) -> str:
        digits = found[0].lstrip("0")
        return f"\0{chr(len(digits))}{digits}"

    return re.sub(r"[0-9]+", key, name)


def suffix(name: str) -> str:
    """The suffix of a file's name, in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - as above


def is_hidden(name: str) -> bool:
    """Whether a file or a folder above it is hidden, or is what macOS adds to archives."""
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def read_file(path: Path) -> bytes:
    """The bytes of a file of a collection.

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
