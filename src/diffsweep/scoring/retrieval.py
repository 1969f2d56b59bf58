"""What is measured of samples and the texts that they were asked for: how often the text is found among others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from diffsweep.conditioners.conditioner import ReadsTexts
from diffsweep.data.examples import Dataset
from diffsweep.data.modality import IMAGES
from diffsweep.data.source import Source, in_memory
from diffsweep.evaluation.checked_tensors import read_tensors, write_tensors
from diffsweep.evaluation.extractor import sha256
from diffsweep.evaluation.features import Features
from diffsweep.evaluation.metric import settings
from diffsweep.evaluation.picture_text import ARCHITECTURE, PictureTextEncoder, finds, fit
from diffsweep.files import CannotWriteError
from diffsweep.messages import say
from diffsweep.mistakes import whole
from diffsweep.scoring.estimate import mean_of
from diffsweep.scoring.requests import Requests
from diffsweep.sweep.store.alone import alone
from diffsweep.sweep.store.result import Measure

# Of samples as stored (N, ...), their numbers (N,) and texts: a value of each, float (N,).
Score = Callable[[Tensor, Tensor, Sequence[str]], Tensor]
# Held-out pairs, at most, of which the ceiling is taken.
_HELD_OUT = 1000


@dataclass(frozen=True, eq=False)
class TextScore:
    """How samples are held against the texts that they were asked for.

    Attributes:
        score: Gives a value of each.
        ceiling: The mean value of real held-out pairs.
        by: What measures, in a few words for the record.
    """

    score: Score
    ceiling: float | None
    by: str


@runtime_checkable
class TextMetric(Protocol):
    """What is measured of samples and texts.

    Attributes:
        short: Name of its number, which lies in no feature space.
    """

    @property
    def short(self) -> str: ...

    def absence(self, requests: Requests) -> str | None:
        """Why there is no number of what is asked for so; None if there is one."""
        ...

    def ready(self, requests: Requests, cache: Path) -> TextScore:
        """Make what measures, or find it in the cache folder. Raises ValueError for data that have no texts."""
        ...


@dataclass(frozen=True)
class Retrieval:
    """`retrieval`, 0 to 1: the share of samples whose text is found among `among`, by an encoder of pictures and texts.

    The encoder is trained here on the training split, once for all cells, and kept. Larger is better; what it reaches
    with real held-out pairs (the floor) is the most that means anything, 1 in `among` is chance.

    Args:
        among: Texts to choose from, the right one included, >= 2: captions of the test split, or all of it if it has
            fewer.
        steps: Of the encoder's training, >= 1.

    Raises:
        ValueError: for a value out of range.
    """

    among: int = 100
    steps: int = 600

    short = "retrieval"

    def __post_init__(self) -> None:
        whole("among", self.among, 2)
        whole("steps", self.steps, 1)

    def absence(self, requests: Requests) -> str | None:
        """See `TextMetric.absence`."""
        if requests.reader is None:
            return "the samples were asked for no text (condition=text)"
        if requests.dataset.modality != IMAGES:
            return f"the encoder reads images, and dataset={requests.dataset.name} has {requests.dataset.modality.name}"
        return None

    def ready(self, requests: Requests, cache: Path) -> TextScore:
        """See `TextMetric.ready`."""
        dataset, reader = requests.dataset, requests.reader
        assert reader is not None
        train, test = dataset.load("train"), dataset.load("test")
        network = self._encoder(dataset, reader, train, cache)
        some = test.take(torch.arange(min(_HELD_OUT, len(test))))
        pool = list(dict.fromkeys(text for text in in_memory_texts(reader, test) if text.strip()))

        def score(samples: Tensor, numbers: Tensor, texts: Sequence[str]) -> Tensor:
            here = network.to(samples.device)
            others = [self._others(pool, int(i), text) for i, text in zip(numbers.tolist(), texts, strict=True)]
            return finds(here, samples, texts, others)

        texts = [str(text) for text in reader.texts(some)]
        told = torch.tensor([i for i, text in enumerate(texts) if text.strip()], dtype=torch.int64)
        ceiling = None
        if len(told):
            ceiling = float(score(some.x[told], told, [texts[i] for i in told.tolist()]).mean())
        among = min(self.among, len(pool))
        by = f"{settings(self)}: 1 of {among} captions of the test split, chance {1 / max(1, among):.3g}"
        return TextScore(score, ceiling, by)

    def _others(self, pool: Sequence[str], number: int, text: str) -> list[str]:
        """The wrong texts that a sample's is to be found among: a function of its number."""
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(number)).tolist()
        others = [pool[int(i)] for i in order[: self.among]]
        return [other for other in others if other != text][: self.among - 1]

    def _encoder(self, dataset: Dataset, reader: ReadsTexts, train: Source, cache: Path) -> PictureTextEncoder:
        identity = sha256(ARCHITECTURE, train.digest(), str(self.steps))
        path = Path(cache) / "picture_text" / f"{identity[:24]}.safetensors"
        stored = read_tensors(path)
        if stored is None:
            with alone(path.with_suffix(".lease"), "metric retrieval", "trains its encoder"):
                # Whoever had to wait finds what the other has made.
                stored = read_tensors(path)
                if stored is None:
                    stored = self._trained(dataset, reader, train)
                    try:
                        write_tensors(path, stored)
                    except CannotWriteError as error:
                        say(f"careful: {error}; the encoder of metric retrieval is used, and not kept")
        network = PictureTextEncoder(dataset.stored[0])
        network.load_state_dict(stored)
        return network.requires_grad_(False).eval()

    def _trained(self, dataset: Dataset, reader: ReadsTexts, train: Source) -> dict[str, Tensor]:
        say(f"metric retrieval: training an encoder of {dataset.name}'s pictures and captions, {self.steps:,} steps")
        pairs = in_memory(train, torch.device("cpu"))
        texts = [str(text) for text in reader.texts(pairs)]
        told = torch.tensor([i for i, text in enumerate(texts) if text.strip()], dtype=torch.int64)
        if not len(told):
            raise ValueError(f"metric retrieval: no example of dataset={dataset.name} has a caption")
        network = fit(pairs.x[told], [texts[i] for i in told.tolist()], self.steps)
        return {name: value.detach().cpu() for name, value in network.state_dict().items()}


def in_memory_texts(reader: ReadsTexts, source: Source) -> list[str]:
    """All texts of a split."""
    return [str(text) for text in reader.texts(in_memory(source, torch.device("cpu")))]


def measure_texts(
    metrics: Sequence[TextMetric], scores: dict[str, TextScore], requests: Requests, drawn: Features
) -> list[Measure]:
    """The means of what was measured where samples were drawn; of a metric that has no number, why.

    Args:
        metrics: All that were asked for.
        scores: Those that measured, by their short names.
        requests: What samples were asked for.
        drawn: With the values of each sample, (N, 1), under these names.
    """
    found = []
    for metric in metrics:
        one = scores.get(metric.short)
        if one is None:
            found.append(Measure(metric.short, None, by=settings(metric), reason=metric.absence(requests)))
        else:
            found.append(mean_of(metric.short, drawn[metric.short][:, 0].double(), one.by, floor=one.ceiling))
    return found
