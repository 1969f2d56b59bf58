"""Videos of the user's own: animated pictures, or folders of frames."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, final

from diffsweep.data.decoders import VideoDecoder
from diffsweep.data.examples import Dataset, Split, known_split
from diffsweep.data.modality import VIDEOS
from diffsweep.data.packed_source import PackedSource
from diffsweep.data.packing import PackedCollection, Packing


@final
class Video(Dataset):
    """Videos from a collection (see `data.collections.clips`), packed once (see `data.packed`).

    Args:
        path: of a folder or file.
        size: pixels a side; None if all have one size already.
        frames: how many are taken of each, from the first on; None for all, if all videos have as many.
        stride: every so many-th frame is taken.
        channels: 1, 3 or 4; None for 1 if every frame is grey, else 3.
        crop: "center" or "stretch", as of `PictureFormat`.
        labels: "auto" takes the classes that come with the videos; "none" takes none.
        broken: "refuse", or "skip" to leave videos out that cannot be read or are too short.
        test_share: share of the videos that are held out.
        cache: folder for packed videos.
        content: identity of the videos; None takes what is there. If they are others now, `load` refuses.
        shape: (C, T, H, W), nothing else than what the videos have.
        classes: number of labels, nothing else than what the videos have.
        sigma_data: root mean square of the training videos in [-1, 1].

    Raises:
        ValueError: for a bad value.
    """

    name: ClassVar[str] = "video"

    def __init__(
        self,
        path: str | Path,
        size: int | None,
        frames: int | None,
        stride: int,
        channels: Literal[1, 3, 4] | None,
        crop: Literal["center", "stretch"],
        labels: Literal["auto", "none"],
        broken: Literal["refuse", "skip"],
        test_share: float,
        cache: str | Path,
        content: str | None,
        shape: tuple[int, ...],
        classes: int,
        sigma_data: float,
    ) -> None:
        decoder = VideoDecoder(size, frames, stride, channels, crop)
        super().__init__(shape, classes, sigma_data, VIDEOS)
        packing = Packing(decoder, labels, broken, test_share)
        self.collection = PackedCollection(Path(path), packing, Path(cache), content)

    def load(self, split: Split) -> PackedSource:
        """The split as uint8 (N, C, T, H, W), mapped from the disk, in the order of their content; see `Dataset.load`.

        Raises:
            ValueError: when the videos are not those that `content` names.
        """
        known_split(split)
        return PackedSource(self.collection.packed(), split)
