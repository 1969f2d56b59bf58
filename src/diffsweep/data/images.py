"""Pictures of the user's own: a folder, zip, tar, parquet, arrow, npz or npy."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from diffsweep.data.decode import Crop
from diffsweep.data.decoders import PictureDecoder
from diffsweep.data.examples import Dataset, Split, known_split
from diffsweep.data.modality import IMAGES
from diffsweep.data.packed_source import PackedSource, RandomCrops
from diffsweep.data.packing import PackedCollection, Packing


class Images(Dataset):
    """Pictures from a collection (see `data.collections`), packed once (see `data.packed`).

    Args:
        path: of a folder or file.
        size: pixels a side; None if all pictures have one size already.
        channels: 1, 3 or 4; None for 1 if every picture is grey, else 3.
        crop: "center", "stretch" or "random", as of `PictureFormat`.
        labels: "auto" takes the classes that come with the pictures; "none" takes none.
        broken: "refuse", or "skip" to leave pictures out that cannot be read.
        test_share: share of the pictures that are held out, as of `Packing`.
        smallest_crop: least share of the shorter side that a random crop shows, as of `PictureFormat`.
        cache: folder for packed pictures.
        content: identity of the pictures; None takes what is there. If they are others now, `load` refuses.
        shape: (C, H, W), nothing else than what the pictures have.
        classes: number of labels, nothing else than what the pictures have.
        sigma_data: root mean square of the training pictures in [-1, 1].

    Raises:
        ValueError: for a bad value.
    """

    name: ClassVar[str] = "images"

    def __init__(
        self,
        path: str | Path,
        size: int | None,
        channels: Literal[1, 3, 4] | None,
        crop: Crop,
        labels: Literal["auto", "none"],
        broken: Literal["refuse", "skip"],
        test_share: float,
        smallest_crop: float,
        cache: str | Path,
        content: str | None,
        shape: tuple[int, ...],
        classes: int,
        sigma_data: float,
    ) -> None:
        super().__init__(shape, classes, sigma_data, IMAGES)
        self.decoder = PictureDecoder(size, channels, crop, smallest_crop)
        packing = Packing(self.decoder, labels, broken, test_share)
        self.collection = PackedCollection(Path(path), packing, Path(cache), content)

    def load(self, split: Split) -> PackedSource | RandomCrops:
        """The split as uint8 (N, C, H, W), mapped from the disk, in the order of their content; see `Dataset.load`.

        Raises:
            ValueError: when the pictures are not those that `content` names.
        """
        known_split(split)
        packed = self.collection.packed()
        source = PackedSource(packed, split)
        if not self.decoder.varies:
            return source
        return RandomCrops(source, self.collection.members(split), self.decoder.picture_format(packed.shape[0]))
