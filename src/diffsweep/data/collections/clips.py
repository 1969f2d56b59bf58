"""Collections of videos and of sounds: files or folders of frames, with classes, splits and captions as pictures have.

- Videos: animated files (GIF, WebP, APNG) in any collection of pictures, each a video; or folders of pictures, each
  folder a video and its pictures the frames, in the natural order of their names. Which of the two is told by the first
  picture: whether it moves.
- Sounds: files in a folder or zip.

The folder above a video or sound is its class, if all lie in such folders.
"""

from __future__ import annotations

from pathlib import Path

from diffsweep.data.collections import Member, Members, file_names, pictures
from diffsweep.data.collections.described import described, of_zip
from diffsweep.data.collections.names import read_file, suffix
from diffsweep.data.decode import BrokenPictureError
from diffsweep.data.video_format import is_animated

SOUNDS = frozenset(".wav .flac .ogg .opus .mp3 .aif .aiff .aifc .au .caf .w64".split())  # noqa: SIM905


def videos(path: Path) -> Members:
    """All videos of a collection, in the natural order of their names: the bytes of a file, or of those of the frames.

    Raises:
        ValueError: in one line, for what is no such collection.
        OSError: for what may not be read.
    """
    found = pictures(path)
    if is_animated(_bytes(found[0])):
        return found
    frames: dict[str, list[int]] = {}
    for place, name in enumerate(found.names):
        frames.setdefault(name.rpartition("/")[0], []).append(place)
    if "" in frames:
        raise ValueError(
            f"{path} holds pictures that do not move, as {found.names[frames[''][0]]}: give animated GIF or WebP "
            "files, or put the frames of each video into a folder of its own"
        )
    # As if each folder were a file of its name.
    named = described([f"{folder}.gif" for folder in frames], lambda name: b"")
    folders = list(frames)
    return Members(
        folders,
        lambda place: [_bytes(found[frame]) for frame in frames[folders[place]]],
        named.labels,
        named.captions,
        named.splits,
    ).sorted()


def sounds(path: Path) -> Members:
    """All sounds of a folder or zip, in the natural order of their names. Errors as `videos`."""
    if not path.exists():
        raise ValueError(f"there is no file or folder {path}")
    if path.is_dir():
        found = described(file_names(path), lambda name: read_file(path / name), SOUNDS)
    elif suffix(path.name) == ".zip":
        found = of_zip(path, SOUNDS)
    else:
        one = f" (to read a single sound, give its folder {path.parent})" if suffix(path.name) in SOUNDS else ""
        raise ValueError(f"{path} is no folder and no .zip{one}")
    if not found:
        raise ValueError(f"{path} holds no sounds ({', '.join(sorted(SOUNDS))})")
    return found.sorted()


def _bytes(one: Member) -> bytes:
    content = one.content()
    if not isinstance(content, bytes):
        raise BrokenPictureError("an array, which has no frames")
    return content
