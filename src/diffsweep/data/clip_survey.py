"""A survey of a collection of videos or sounds: how many, how long, of which kinds and classes, what is broken."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffsweep.data.collections import file_names, natural
from diffsweep.data.collections.clips import SOUNDS, Clip, sounds, videos
from diffsweep.data.collections.picture import SUFFIXES, suffix
from diffsweep.data.decode import BrokenPictureError, picture_size
from diffsweep.data.sound_format import sound_length

Kind = Literal["images", "video", "audio"]


@dataclass(frozen=True)
class ClipSurvey:
    """What is in a collection of videos or sounds.

    Attributes:
        count: how many there are.
        formats: their number by file format.
        lengths: of each that can be read: frames of a video, seconds of a sound.
        sizes: number of them by size: width and height of a frame, or samples a second and channels.
        classes: their number by class; empty without classes.
        splits: their number by given split; empty if none is given.
        broken: (name, reason) of those that cannot be read.
    """

    count: int
    formats: Counter[str]
    lengths: list[float]
    sizes: Counter[tuple[int, int]]
    classes: dict[str, int]
    splits: Counter[str]
    broken: list[tuple[str, str]]


def kind_of(path: Path) -> Kind:
    """Audio for a folder that holds sounds and no pictures, else images: whether pictures are videos is not told."""
    if not path.is_dir():
        return "images"
    found = {suffix(name) for name in file_names(path)}
    return "audio" if found & SOUNDS and not found & SUFFIXES else "images"


def survey_videos(path: Path, most: int | None) -> ClipSurvey:
    """Look at videos, at most so many of them, evenly over the list. Raises ValueError or OSError."""
    return _survey(videos(path), most, _video)


def survey_sounds(path: Path, most: int | None) -> ClipSurvey:
    """Look at sounds, at most so many of them, evenly over the list. Raises ValueError or OSError."""
    return _survey(sounds(path), most, _sound)


# Of a clip: its length, its size, its file format.
_Seen = tuple[float, tuple[int, int], str]


def _survey(found: list[Clip], most: int | None, look: Callable[[Clip], _Seen]) -> ClipSurvey:
    count = len(found) if most is None else min(most, len(found))
    labels = Counter(clip.label for clip in found if clip.label is not None)
    seen: list[_Seen] = []
    broken: list[tuple[str, str]] = []
    for clip in (found[i * len(found) // count] for i in range(count)):
        try:
            seen.append(look(clip))
        except FileNotFoundError:
            broken.append((clip.name, "a link to nowhere"))
        except (BrokenPictureError, OSError) as error:
            broken.append((clip.name, " ".join(str(error).split())))
    return ClipSurvey(
        count=len(found),
        formats=Counter(kind for *_, kind in seen),
        lengths=[length for length, *_ in seen],
        sizes=Counter(size for _, size, _ in seen),
        classes={label: labels[label] for label in sorted(labels, key=natural)},
        splits=Counter(clip.split for clip in found if clip.split is not None),
        broken=broken,
    )


def _video(clip: Clip) -> _Seen:
    from PIL import Image

    content = clip.content()
    if not isinstance(content, bytes):
        width, height, kind = picture_size(content[0])
        return len(content), (width, height), f"{kind} frames"
    width, height, kind = picture_size(content)
    with Image.open(io.BytesIO(content)) as picture:
        return getattr(picture, "n_frames", 1), (width, height), kind


def _sound(clip: Clip) -> _Seen:
    content = clip.content()
    assert isinstance(content, bytes)
    samples, rate, channels, kind = sound_length(content)
    return samples / rate, (rate, channels), kind
