"""What is measured of samples and the texts that they were asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from diffsweep.data.modality import IMAGES
from diffsweep.evaluation.checked_tensors import read_tensors, write_tensors
from diffsweep.evaluation.features import Features
from diffsweep.files import CannotWriteError
from diffsweep.messages import say
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
        by: What measures, in a few words for the record, where it gives no number.
    """

    @property
    def short(self) -> str: ...

    @property
    def by(self) -> str: ...

    def absence(self, requests: Requests) -> str | None:
        """Why there is no number of what is asked for so; None if there is one."""
        ...

    def ready(self, requests: Requests, cache: Path) -> TextScore:
        """Make what measures, or find it in the cache folder. Raises ValueError for data that have no texts."""
        ...


def why_no_texts(requests: Requests) -> str | None:
    """Why pictures cannot be held against texts where samples are asked for so; None if they can."""
    if requests.reader is None:
        return "the samples were asked for no text (condition=text)"
    if requests.dataset.modality != IMAGES:
        return f"the encoder reads images, and dataset={requests.dataset.name} has {requests.dataset.modality.name}"
    return None


class Pairs(NamedTuple):
    """Real pictures as stored (M, ...), the numbers of the examples int64 (M,), and their M texts."""

    x: Tensor
    numbers: Tensor
    texts: list[str]


def held_out_pairs(requests: Requests) -> Pairs:
    """The first held-out examples, at most `_HELD_OUT`, without those whose text is empty."""
    assert requests.reader is not None
    test = requests.dataset.load("test")
    some = test.take(torch.arange(min(_HELD_OUT, len(test))))
    texts = [str(text) for text in requests.reader.texts(some)]
    told = torch.tensor([i for i, text in enumerate(texts) if text.strip()], dtype=torch.int64)
    return Pairs(some.x[told], told, [texts[i] for i in told.tolist()])


def from_cache(path: Path, what: str, work: str, compute: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """Tensors that the file holds, or else what is computed, by one process at a time, and put there if that may be.

    Args:
        path: Of the file, named by all that the tensors depend on.
        what: They are, for those who wait and for messages, as "metric retrieval".
        work: What whoever computes them does, as "trains its encoder".
        compute: Gives them, on the CPU.
    """
    stored: Mapping[str, Tensor] | None = read_tensors(path)
    if stored is None:
        with alone(path.with_suffix(".lease"), what, work):
            # Whoever had to wait finds what the other has made.
            stored = read_tensors(path)
            if stored is None:
                stored = compute()
                try:
                    write_tensors(path, stored)
                except CannotWriteError as error:
                    say(f"careful: {error}; what {what} computed is used, and not kept")
    return stored


def score_texts(scores: Mapping[str, TextScore], samples: Tensor, numbers: Tensor, texts: Sequence[str]) -> Tensor:
    """Values of samples by all scores in their order, and last whether a sample has a text, float (N, scores + 1).

    One without a text was asked for nothing: its values are 0.
    """
    told = torch.tensor([bool(text.strip()) for text in texts])
    found = torch.zeros(len(texts), len(scores) + 1)
    found[:, -1] = told
    if told.any():
        rows: list[int] = told.nonzero()[:, 0].tolist()
        asked = [texts[i] for i in rows]
        for column, one in enumerate(scores.values()):
            found[told, column] = one.score(samples[told.to(samples.device)], numbers.cpu()[told], asked).float().cpu()
    return found


def measure_texts(
    metrics: Sequence[TextMetric], scores: Mapping[str, TextScore], requests: Requests, drawn: Features
) -> list[Measure]:
    """The means of what was measured where samples were drawn; of a metric that has no number, why.

    Args:
        metrics: All that were asked for.
        scores: Those that measured, by their short names.
        requests: What samples were asked for.
        drawn: With the output `TEXT_SCORES`, as `score_texts` gives it, if there are any scores.
    """
    found = []
    columns = {name: column for column, name in enumerate(scores)}
    for metric in metrics:
        one = scores.get(metric.short)
        if one is None:
            found.append(Measure(metric.short, None, by=metric.by, reason=metric.absence(requests)))
            continue
        values = drawn[TEXT_SCORES]
        told = values[:, -1] > 0
        if told.any():
            of_each = values[told, columns[metric.short]].double()
            found.append(mean_of(metric.short, of_each, one.by, floor=one.ceiling))
        else:
            found.append(Measure(metric.short, None, by=one.by, reason="no sample was asked for a text"))
    return found


# What `score_texts` gives, among the outputs of an extractor.
TEXT_SCORES = "text_scores"
