"""Collections that are spread as no general form: CelebA's aligned faces, and the emoji of emoji-datasource.

Each is known by the files that lie at its top.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.data.collections.members import Member, Members
from diffsweep.data.collections.names import one_line, read_file, suffix
from diffsweep.settings import Split

if TYPE_CHECKING:
    import numpy as np

# How the sets that have an option of their own are had, by the name of their folder.
_FETCH = {
    "emoji-datasource-twitter": (
        "npm pack emoji-datasource-twitter@16.0.0 && tar xzf emoji-datasource-twitter-16.0.0.tgz && mv package {path}"
    ),
    "celeba": (
        "put img_align_celeba.zip, list_attr_celeba.txt and list_eval_partition.txt of "
        "mmlab.ie.cuhk.edu.hk/projects/CelebA.html there"
    ),
    "imagenet": "put the folders train and val, with a folder for each class id below, there",
}


def how_to_get(path: Path) -> str:
    """What to do for a folder that is not there, as the end of a message; nothing for one of the user's own."""
    return f": {_FETCH[path.name].format(path=path)}" if path.name in _FETCH else ""


# --- CelebA: Z. Liu, P. Luo, X. Wang, X. Tang, "Deep Learning Face Attributes in the Wild", arXiv 1411.7766 ----------

FACES, PARTITION, ATTRIBUTES = "img_align_celeba", "list_eval_partition.txt", "list_attr_celeba.txt"
# Of pictures of 178 x 218 the square that diffusion papers take: centre (89, 121), 128 pixels a side. Source: the code
# of J. Song, C. Meng, S. Ermon, "Denoising Diffusion Implicit Models", arXiv 2010.02502 (datasets/__init__.py).
BOX, ALIGNED = (25, 57, 153, 185), (178, 218)
_PARTITIONS: dict[str, Split] = {"0": "train", "1": "test", "2": "test"}


def is_celeba(path: Path) -> bool:
    """Whether a folder holds CelebA's aligned faces, as folder or zip, beside their attributes or partition."""
    return any((path / name).is_file() for name in (PARTITION, ATTRIBUTES)) and (
        (path / FACES).is_dir() or (path / f"{FACES}.zip").is_file()
    )


def of_celeba(path: Path) -> Members:
    """The faces, cut to `BOX`, with their attributes as captions, and the official partition: validation is held out.

    Raises:
        ValueError: for lists that cannot be understood, or a zip that cannot be read.
    """
    splits: dict[str, Split] = {name: _partition(path, value) for name, (value, *_) in _table(path / PARTITION)}
    rows = list(_table(path / ATTRIBUTES, header=True))
    names = rows[0][1] if rows else []
    captions = {name: _attributes(path, names, values) for name, values in rows[1:]}
    read, faces = _faces(path)
    found = sorted(faces)
    return Members(
        found,
        lambda place: _cut(read(found[place])),
        [None] * len(found),
        [captions.get(name) for name in found],
        [splits.get(name) for name in found],
    )


def _faces(path: Path) -> tuple[Callable[[str], bytes], list[str]]:
    folder = path / FACES
    if folder.is_dir():
        names = [one.name for one in folder.iterdir() if suffix(one.name) == ".jpg"]
        return lambda name: read_file(folder / name), names
    try:
        archive = _archive(str(path / f"{FACES}.zip"))
        members = {name.rpartition("/")[2]: name for name in archive.namelist() if suffix(name) == ".jpg"}
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{path / FACES}.zip is no zip archive that can be read ({one_line(error)})") from error
    return lambda name: archive.read(members[name]), list(members)


@lru_cache(maxsize=2)
def _archive(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _cut(content: bytes) -> np.ndarray:
    """Pixels (128, 128, 3) of an aligned face. Raises ValueError for a picture of another size."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(content)) as picture:
        if picture.size != ALIGNED:
            raise ValueError(f"{picture.size[0]}x{picture.size[1]} pixels, not CelebA's {ALIGNED[0]}x{ALIGNED[1]}")
        return np.asarray(picture.convert("RGB").crop(BOX))


def _table(path: Path, *, header: bool = False) -> Iterator[tuple[str, list[str]]]:
    """The rows of a list: a picture's name and its values; with `header` first the names of the columns, under ""."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if header:
        # Above them stands how many there are.
        yield "", lines[1].split() if len(lines) > 1 else []
        lines = lines[2:]
    for line in lines:
        name, *values = line.split() or [""]
        if values:
            yield name, values


def _partition(path: Path, value: str) -> Split:
    if value not in _PARTITIONS:
        raise ValueError(f"{path / PARTITION} has the partition {value}, not 0, 1 or 2")
    return _PARTITIONS[value]


def _attributes(path: Path, names: list[str], values: list[str]) -> str:
    if len(values) != len(names):
        raise ValueError(f"{path / ATTRIBUTES} has a row of {len(values)} values for {len(names)} attributes")
    return ", ".join(name.replace("_", " ").lower() for name, value in zip(names, values, strict=True) if value == "1")


# --- emoji: npm package emoji-datasource-twitter, pictures by Twitter, CC-BY 4.0 ------------------------------------

EMOJI, EMOJI_FOLDER = "emoji.json", "img/twitter/64"


def is_emoji(path: Path) -> bool:
    """Whether a folder is the unpacked npm package emoji-datasource-twitter."""
    return (path / EMOJI).is_file() and (path / EMOJI_FOLDER).is_dir()


def of_emoji(path: Path) -> Members:
    """The pictures, each with its category as class and its name and keywords as caption; of all skin tones.

    Raises:
        ValueError: for a list that cannot be understood.
    """
    try:
        entries = json.loads(read_file(path / EMOJI))
        found = [one for entry in entries for one in _variants(path, entry)]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path / EMOJI} is not that of emoji-datasource ({one_line(error)})") from error
    return Members.of([one for one in found if (path / one.name).is_file()])


def _variants(path: Path, entry: dict[str, Any]) -> Iterator[Member]:
    words = [str(entry["name"]).lower(), *(str(word).replace("_", " ") for word in entry["short_names"])]
    variations: dict[str, dict[str, str]] = dict(entry.get("skin_variations") or {})
    for tone, image in [("", entry["image"]), *((tone, one["image"]) for tone, one in variations.items())]:
        name = f"{EMOJI_FOLDER}/{image}"
        tones = [_TONES[part] for part in tone.split("-") if part in _TONES]
        caption = ", ".join(dict.fromkeys([*words, *tones]))
        yield Member(name, partial(read_file, path / name), str(entry["category"]), caption)


_TONES = {
    "1F3FB": "light skin tone",
    "1F3FC": "medium-light skin tone",
    "1F3FD": "medium skin tone",
    "1F3FE": "medium-dark skin tone",
    "1F3FF": "dark skin tone",
}
