"""Sounds of the user's own: a folder or zip of WAV, FLAC, Ogg and other files."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, final

from diffsweep.data.decoders import SoundDecoder
from diffsweep.data.examples import Dataset, Split, known_split
from diffsweep.data.modality import sounds
from diffsweep.data.packed_source import PackedSource
from diffsweep.data.packing import PackedCollection, Packing


@final
class Audio(Dataset):
    """Sounds from a collection (see `data.collections.clips`), packed once (see `data.packed`).

    Args:
        path: of a folder or zip.
        sample_rate: samples a second that all are brought to, from 1,000.
        length: samples of each example; what is shorter is followed by silence.
        channels: 1, the mean of what there is, or 2.
        crop: "start" or "center": what is taken of a longer sound.
        normalize: "peak" brings the largest value of each example to full scale; "none" leaves loudness as it is.
        labels: "auto" takes the classes that come with the sounds; "none" takes none.
        broken: "refuse", or "skip" to leave sounds out that cannot be read.
        test_share: share of the sounds that are held out.
        cache: folder for packed sounds.
        content: identity of the sounds; None takes what is there. If they are others now, `load` refuses.
        shape: (channels, length), nothing else.
        classes: number of labels, nothing else than what the sounds have.
        sigma_data: root mean square of the training sounds in [-1, 1].

    Raises:
        ValueError: for a bad value.
    """

    name: ClassVar[str] = "audio"

    def __init__(
        self,
        path: str | Path,
        sample_rate: int,
        length: int,
        channels: Literal[1, 2],
        crop: Literal["start", "center"],
        normalize: Literal["peak", "none"],
        labels: Literal["auto", "none"],
        broken: Literal["refuse", "skip"],
        test_share: float,
        cache: str | Path,
        content: str | None,
        shape: tuple[int, ...],
        classes: int,
        sigma_data: float,
    ) -> None:
        decoder = SoundDecoder(sample_rate, length, channels, crop, normalize)
        super().__init__(shape, classes, sigma_data, sounds(sample_rate))
        packing = Packing(decoder, labels, broken, test_share)
        self.collection = PackedCollection(Path(path), packing, Path(cache), content)

    def load(self, split: Split) -> PackedSource:
        """The split as int16 (N, channels, length), mapped from the disk, in the order of their content.

        Raises:
            ValueError: when the sounds are not those that `content` names.
        """
        known_split(split)
        return PackedSource(self.collection.packed(), split)
