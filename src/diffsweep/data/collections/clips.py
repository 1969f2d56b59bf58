"""Collections of videos and of sounds: files or folders of frames, with classes, splits and captions as pictures have.

- Videos: animated files (GIF, WebP, APNG) in any collection of pictures, each a video; or folders of pictures, each
  folder a video and its pictures the frames, in the natural order of their names. Which of the two is told by the first
  picture: whether it moves.
- Sounds: files in a folder or zip.

The folder above a video or sound is its class, if all lie in such folders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from diffsweep.data.collections import Picture, file_names, natural, pictures
from diffsweep.data.collections.described import described, of_zip
from diffsweep.data.collections.picture import Split, suffix
from diffsweep.data.decode import BrokenPictureError
from diffsweep.data.video_format import is_animated

SOUNDS = frozenset(".wav .flac .ogg .opus .mp3 .aif .aiff .aifc .au .caf .w64".split())  # noqa: SIM905


@dataclass(frozen=True)
class Clip:
    """A video or a sound of a collection, not read so far.

    Attributes:
        name: its path in the collection, with "/".
        content: gives its file's bytes, or those of the files of its frames.
        label: what it shows, as text; None if that is not known.
        caption: its description; None if it has none.
        split: the split that it was given; None if it was given none.
    """

    name: str
    content: Callable[[], bytes | Sequence[bytes]]
    label: str | None = None
    caption: str | None = None
    split: Split | None = None


def videos(path: Path) -> list[Clip]:
    """All videos of a collection, in the natural order of their names.

    Raises:
        ValueError: in one line, for what is no such collection.
        OSError: for what may not be read.
    """
    found = pictures(path)
    if is_animated(_bytes(found[0])):
        return [Clip(one.name, partial(_bytes, one), one.label, one.caption, one.split) for one in found]
    frames: dict[str, list[Picture]] = {}
    for one in found:
        frames.setdefault(one.name.rpartition("/")[0], []).append(one)
    if "" in frames:
        raise ValueError(
            f"{path} holds pictures that do not move, as {frames[''][0].name}: give animated GIF or WebP files, or put "
            "the frames of each video into a folder of its own"
        )
    # As if each folder were a file of its name.
    named = described([f"{folder}.gif" for folder in frames], lambda name: b"")
    return [
        Clip(folder, partial(_all_bytes, frames[folder]), one.label, None, one.split)
        for one in sorted(named, key=lambda one: natural(one.name))
        for folder in [one.name.removesuffix(".gif")]
    ]


def sounds(path: Path) -> list[Clip]:
    """All sounds of a folder or zip, in the natural order of their names. Errors as `videos`."""
    if not path.exists():
        raise ValueError(f"there is no file or folder {path}")
    if path.is_dir():
        found = described(file_names(path), lambda name: (path / name).read_bytes(), SOUNDS)
    elif suffix(path.name) == ".zip":
        found = of_zip(path, SOUNDS)
    else:
        one = f" (to read a single sound, give its folder {path.parent})" if suffix(path.name) in SOUNDS else ""
        raise ValueError(f"{path} is no folder and no .zip{one}")
    if not found:
        raise ValueError(f"{path} holds no sounds ({', '.join(sorted(SOUNDS))})")
    found = sorted(found, key=lambda one: natural(one.name))
    return [Clip(one.name, partial(_bytes, one), one.label, one.caption, one.split) for one in found]


def _bytes(one: Picture) -> bytes:
    content = one.content()
    if not isinstance(content, bytes):
        raise BrokenPictureError("an array, which has no frames")
    return content


def _all_bytes(frames: Sequence[Picture]) -> list[bytes]:
    return [_bytes(one) for one in frames]
