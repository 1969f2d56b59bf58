"""How often the text of a sample is found among others, by an encoder that is trained on the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffsweep.conditioners.conditioner import ReadsTexts
from diffsweep.data.examples import Dataset
from diffsweep.data.source import Source, in_memory
from diffsweep.evaluation.extractor import sha256
from diffsweep.evaluation.metric import settings
from diffsweep.evaluation.picture_text import ARCHITECTURE, PictureTextEncoder, finds, fit
from diffsweep.messages import say
from diffsweep.mistakes import whole
from diffsweep.scoring.requests import Requests
from diffsweep.scoring.text_metrics import TextScore, from_cache, held_out_pairs, why_no_texts


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

    @property
    def by(self) -> str:
        """See `TextMetric.by`."""
        return settings(self)

    def absence(self, requests: Requests) -> str | None:
        """See `TextMetric.absence`."""
        return why_no_texts(requests)

    def ready(self, requests: Requests, cache: Path) -> TextScore:
        """See `TextMetric.ready`."""
        dataset, reader = requests.dataset, requests.reader
        assert reader is not None
        network = self._encoder(dataset, reader, dataset.load("train"), cache)
        every = reader.texts(in_memory(dataset.load("test"), torch.device("cpu")))
        pool = list(dict.fromkeys(str(text) for text in every if str(text).strip()))

        def score(samples: Tensor, numbers: Tensor, texts: Sequence[str]) -> Tensor:
            here = network.to(samples.device)
            others = [self._others(pool, int(i), text) for i, text in zip(numbers.tolist(), texts, strict=True)]
            return finds(here, samples, texts, others)

        real = held_out_pairs(requests)
        ceiling = float(score(real.x, real.numbers, real.texts).mean()) if real.texts else None
        among = min(self.among, len(pool))
        by = f"{self.by}: 1 of {among} captions of the test split, chance {1 / max(1, among):.3g}"
        return TextScore(score, ceiling, by)

    def _others(self, pool: Sequence[str], number: int, text: str) -> list[str]:
        """The wrong texts that a sample's is to be found among: a function of its number."""
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(number)).tolist()
        others = [pool[int(i)] for i in order[: self.among]]
        return [other for other in others if other != text][: self.among - 1]

    def _encoder(self, dataset: Dataset, reader: ReadsTexts, train: Source, cache: Path) -> PictureTextEncoder:
        identity = sha256(ARCHITECTURE, train.digest(), str(self.steps))
        path = Path(cache) / "picture_text" / f"{identity[:24]}.safetensors"
        stored = from_cache(
            path, "metric retrieval", "trains its encoder", lambda: self._trained(dataset, reader, train)
        )
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
