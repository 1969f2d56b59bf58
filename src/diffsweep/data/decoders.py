"""Decoders: what becomes of each picture, video or sound of a collection, as `packing` stores it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

from diffsweep.data.collections import Members, pictures
from diffsweep.data.collections.clips import sounds, videos
from diffsweep.data.decode import CROPS, Crop, PictureFormat
from diffsweep.data.sound_format import SoundFormat, soundfile
from diffsweep.data.video_format import VideoFormat
from diffsweep.mistakes import BadValue, one_of, share, whole

if TYPE_CHECKING:
    import numpy as np

    from diffsweep.data.collections.members import Content


class Decoded(NamedTuple):
    """A member as stored, (channels, ...); SHA-256 of what is its identity; whether its channels are all alike."""

    values: np.ndarray
    digest: bytes
    alike: bool


class Decoder(Protocol):
    """What every member of a collection becomes: a frozen dataclass, whose fields are keys of the dataset's options.

    Attributes:
        noun: what members are called, in the plural.
        zero: the stored value that is 0 to a network; the next value is `1 / unit`.
        unit: how many stored values there are from 0 to 1.
        remedy: what to do about members of different shapes.
    """

    noun: ClassVar[str]
    zero: ClassVar[float]
    unit: ClassVar[float]
    remedy: ClassVar[str]

    @property
    def merges(self) -> bool:
        """Whether one channel is stored where all channels of all members are alike."""
        ...

    @property
    def varies(self) -> bool:
        """Whether a training reads the members themselves, of which what is stored is one variant each."""
        ...

    @property
    def identity(self) -> list[Any]:
        """What makes equal stored values other data."""
        ...

    def find(self, path: Path) -> Members:
        """The members of the collection at `path`. Raises ValueError or OSError."""
        ...

    def decode(self, content: Content) -> Decoded:
        """One member. Raises ValueError or OSError for one that cannot be read."""
        ...

    def size_of(self, shape: Sequence[int]) -> str:
        """The size of what is stored in words."""
        ...


def _hashed(values: np.ndarray, *, merges: bool) -> Decoded:
    digest = hashlib.sha256(values.tobytes()).digest()
    return Decoded(values, digest, merges and bool((values == values[:1]).all()))


@dataclass(frozen=True)
class PictureDecoder:
    """Pictures, see `Decoder`.

    Attributes:
        size: pixels a side, >= 1; None if all have one size already.
        channels: 1, 3 or 4; None for 1 if every picture is grey, else 3.
        crop: as of `PictureFormat`; of random crops one of each picture is packed, chosen by its pixels.
        smallest_crop: as of `PictureFormat`.
    """

    noun: ClassVar[str] = "pictures"
    zero: ClassVar[float] = 127.5
    unit: ClassVar[float] = 127.5
    remedy: ClassVar[str] = "dataset.size=64 brings all to 64x64"

    size: int | None
    channels: Literal[1, 3, 4] | None = None
    crop: Crop = "center"
    smallest_crop: float = 0.8

    def __post_init__(self) -> None:
        _check_size(self.size, self.channels)
        one_of("crop", self.crop, CROPS)
        share("smallest_crop", self.smallest_crop, zero=False)
        if self.crop == "random" and self.size is None:
            raise BadValue("size", self.size, "must be a number of pixels for crop=random")

    @property
    def merges(self) -> bool:
        return self.channels is None

    @property
    def varies(self) -> bool:
        return self.crop == "random"

    @property
    def identity(self) -> list[Any]:
        return [[self.crop, self.smallest_crop]] if self.varies else []

    def find(self, path: Path) -> Members:
        return pictures(path)

    def picture_format(self, channels: int) -> PictureFormat:
        """What every picture becomes, with 1, 3 or 4 channels."""
        return PictureFormat(self.size, channels, self.crop, self.smallest_crop)  # pyright: ignore[reportArgumentType]

    def decode(self, content: Content) -> Decoded:
        import numpy as np

        assert isinstance(content, bytes | np.ndarray)
        made = self.picture_format(self.channels or 3)
        whole_picture = made.read(content)
        if not self.varies:
            return _hashed(made.cut(whole_picture), merges=self.merges)
        # Every pixel may be seen, so every pixel counts; the crop that is packed follows from them.
        values = np.asarray(whole_picture)
        digest = hashlib.sha256(f"{values.shape}".encode() + values.tobytes()).digest()
        alike = values.ndim == 2 or bool((values == values[..., :1]).all())
        return Decoded(made.cut(whole_picture, int.from_bytes(digest[:8], "big")), digest, alike)

    def size_of(self, shape: Sequence[int]) -> str:
        return f"{shape[2]}x{shape[1]}"


@dataclass(frozen=True)
class VideoDecoder:
    """Videos, see `Decoder`; for size, channels and crop `PictureFormat`, for frames and stride `VideoFormat`."""

    noun: ClassVar[str] = "videos"
    zero: ClassVar[float] = 127.5
    unit: ClassVar[float] = 127.5
    remedy: ClassVar[str] = "set dataset.size, and dataset.frames to the number of the shortest"

    size: int | None
    frames: int | None
    stride: int = 1
    channels: Literal[1, 3, 4] | None = None
    crop: Literal["center", "stretch"] = "center"

    def __post_init__(self) -> None:
        _check_size(self.size, self.channels)
        if self.frames is not None:
            whole("frames", self.frames, 2)
        whole("stride", self.stride, 1)
        one_of("crop", self.crop, ["center", "stretch"])

    @property
    def merges(self) -> bool:
        return self.channels is None

    @property
    def varies(self) -> bool:
        return False

    @property
    def identity(self) -> list[Any]:
        return [self.noun]

    def find(self, path: Path) -> Members:
        return videos(path)

    def decode(self, content: Content) -> Decoded:
        import numpy as np

        assert not isinstance(content, np.ndarray)
        made = VideoFormat(PictureFormat(self.size, self.channels or 3, self.crop), self.frames, self.stride)
        return _hashed(made.decode(content), merges=self.merges)

    def size_of(self, shape: Sequence[int]) -> str:
        return f"{shape[1]} frames of {shape[3]}x{shape[2]}"


@dataclass(frozen=True)
class SoundDecoder:
    """Sounds, see `Decoder`, and `SoundFormat`."""

    noun: ClassVar[str] = "sounds"
    zero: ClassVar[float] = 0.0
    unit: ClassVar[float] = 32768.0
    remedy: ClassVar[str] = ""

    sample_rate: int
    length: int
    channels: Literal[1, 2] = 1
    crop: Literal["start", "center"] = "start"
    normalize: Literal["peak", "none"] = "peak"

    def __post_init__(self) -> None:
        whole("sample_rate", self.sample_rate, 1000, 384_000)
        whole("length", self.length, 16, 2**24)
        if self.channels not in (1, 2):
            raise BadValue("channels", self.channels, "must be 1 or 2")
        one_of("crop", self.crop, ["start", "center"])
        one_of("normalize", self.normalize, ["peak", "none"])

    @property
    def merges(self) -> bool:
        return False

    @property
    def varies(self) -> bool:
        return False

    @property
    def identity(self) -> list[Any]:
        return [self.noun]

    def find(self, path: Path) -> Members:
        found = sounds(path)
        # Where it is missing, no file is broken.
        soundfile()
        return found

    def decode(self, content: Content) -> Decoded:
        assert isinstance(content, bytes)
        made = SoundFormat(self.sample_rate, self.channels, self.length, self.crop, self.normalize)
        return _hashed(made.decode(content), merges=False)

    def size_of(self, shape: Sequence[int]) -> str:
        return str(tuple(shape))


def _check_size(size: int | None, channels: int | None) -> None:
    if size is not None:
        whole("size", size, 1)
    if channels not in (None, 1, 3, 4):
        raise BadValue("channels", channels, "must be null, 1, 3 or 4")
