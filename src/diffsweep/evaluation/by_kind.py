"""The extractor and the metrics that fit a kind of data, for datasets that have none of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from diffsweep.evaluation.efficientnet import efficientnet
from diffsweep.evaluation.energy import Energy
from diffsweep.evaluation.extractor import Extractor
from diffsweep.evaluation.frames import frames
from diffsweep.evaluation.frechet import Frechet
from diffsweep.evaluation.identity import identity
from diffsweep.evaluation.kernel import KernelDistance
from diffsweep.evaluation.mel import SAMPLES_OF_BAND, mel
from diffsweep.evaluation.metric import Metric
from diffsweep.evaluation.mmd import MMD
from diffsweep.evaluation.neighbours import Neighbours
from diffsweep.evaluation.wasserstein import Wasserstein
from diffsweep.mistakes import alternatives


@dataclass(frozen=True)
class ByKind:
    """Stands in a config for an extractor until the dataset is known, whose kind decides."""

    def extractor(
        self, kind: str, shape: tuple[int, ...], folder: str | None, sample_rate: int | None = None
    ) -> Extractor:
        """The extractor of a kind of data.

        Args:
            kind: name of the modality, as images.
            shape: of one stored example.
            folder: of weights files, `paths.weights`.
            sample_rate: of sounds.

        Raises:
            ValueError: for a kind that has none, or weights that are not there.
        """
        return _measures(kind).extractor(shape, folder, sample_rate)

    def metrics(self, kind: str) -> Sequence[Metric]:
        """The metrics of a kind of data; the first ranks cells. Raises ValueError for a kind that has none."""
        return _measures(kind).metrics()


@dataclass(frozen=True)
class _Measures:
    """How a kind of data is measured.

    Attributes:
        extractor: of the shape of one stored example, the folder of weights files and the sample rate.
        metrics: as the YAML of each has them.
    """

    extractor: Callable[[tuple[int, ...], str | None, int | None], Extractor]
    metrics: Callable[[], Sequence[Metric]]


# An entry may be added; one that changes would give runs that are there other numbers under their old names.
_KINDS: Mapping[str, _Measures] = {
    "images": _Measures(
        lambda shape, folder, sample_rate: efficientnet(folder=folder),
        lambda: [Frechet(), KernelDistance(), Neighbours()],
    ),
    "videos": _Measures(
        lambda shape, folder, sample_rate: frames(efficientnet(folder=folder)),
        lambda: [Frechet("frames"), Frechet("differences")],
    ),
    "sounds": _Measures(
        lambda shape, folder, sample_rate: _mel(shape, sample_rate), lambda: [Frechet(), KernelDistance(), Neighbours()]
    ),
    "points": _Measures(
        lambda shape, folder, sample_rate: identity(shape[0]), lambda: [Wasserstein(), Energy(), MMD(), Frechet()]
    ),
}


def _mel(shape: tuple[int, ...], sample_rate: int | None) -> Extractor:
    """With fewer bands where sounds are too short for them."""
    assert sample_rate is not None
    return mel(sample_rate, max(2, min(32, shape[1] // SAMPLES_OF_BAND)))


def _measures(kind: str) -> _Measures:
    if kind not in _KINDS:
        raise ValueError(
            f"extractor=auto knows {alternatives(_KINDS)}, and the data are {kind}: choose another (diffsweep options "
            "extractor lists them)"
        )
    return _KINDS[kind]
