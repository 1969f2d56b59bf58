"""The Frechet distance at an infinite number of samples, from a line in 1 / number through distances at smaller ones.

Source: "Effectively Unbiased FID and Inception Score and where to find them", arXiv 1911.07023, section 4, where the
smaller numbers are random subsets of 15 sizes. Here the samples are divided into 1, 2, 3 ... equal parts, whose mean
distance is taken. Every sample counts once in each division, so that chance moves the line half as far.

The line holds while a part has at least twice as many samples as there are dimensions; the paper's have as many.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from diffsweep.evaluation.features import Features
from diffsweep.evaluation.frechet import leave_out
from diffsweep.evaluation.metric import Numbers, Real
from diffsweep.mistakes import whole

_PER_DIMENSION = 2
_LEAST = 20


class Infinity:
    """`fd.infinity` (`fid_infinity` for Inception's): near zero it may be negative.

    It takes off what the number of drawn samples adds to the distance, and leaves what the number of real ones adds.

    Args:
        parts: the samples are divided into up to this many, at least 2; into fewer where parts would be too small.
        seed: of the division.

    Raises:
        ValueError: for fewer than 2 parts.
    """

    short = "fd.infinity"
    needs = ("features",)

    def __init__(self, parts: int = 5, seed: int = 0) -> None:
        self.parts = whole("parts", parts, 2)
        self.seed = whole("seed", seed)

    def prepare(self, drawn: Features, real: Real) -> Numbers:
        """See `Metric.prepare`; no number for fewer than 40 samples, or 4 for each dimension."""
        x, blocks = drawn["features"], drawn.blocks
        n, d = x.shape
        most = min(self.parts, 2 * n // self.least_samples(d))
        if most < 2:
            return lambda block: {}
        known, order = real.moments(), _order(drawn.labels, n, self.seed)
        block_of = torch.zeros(n, dtype=torch.long)
        for number, block in enumerate(blocks):
            block_of[block] = number

        # All at once, each part in its turn: what they are computed from would fill the memory.
        @functools.cache
        def measured(*blocks_out: int | None) -> list[float]:
            inverse, distance = np.zeros((2, most, len(blocks_out)))
            for parts in range(1, most + 1):
                for first in range(parts):
                    part = order[first::parts]
                    masks = [block_of[part] == number for number in range(len(blocks))]
                    left = [len(part) - (0 if block is None else int(masks[block].sum())) for block in blocks_out]
                    of_part = leave_out(x[part.to(x.device)], masks, known)
                    inverse[parts - 1] += 1 / np.array(left) / parts
                    distance[parts - 1] += np.array([of_part(block) for block in blocks_out]) / parts
            return [float(np.polyfit(*line, 1)[1]) for line in zip(inverse.T, distance.T, strict=True)]

        def numbers(block: int | None) -> Mapping[str, float]:
            return {self.short: measured(None)[0] if block is None else measured(*range(len(blocks)))[block]}

        return numbers

    def least_samples(self, dimension: int) -> int:
        """See `NeedsSamples`: two parts of samples, each with a covariance of nearly full rank."""
        return 2 * max(_PER_DIMENSION * dimension, _LEAST)

    def absence(self, drawn: Features, real: Real) -> str:
        """See `ExplainsAbsence`."""
        n, d = drawn["features"].shape
        return f"it needs {self.least_samples(d)} samples in {d} dimensions, and there are {n}"


def _order(labels: Tensor | None, n: int, seed: int) -> Tensor:
    """Numbers of the samples, to be dealt out.

    Where every class was asked for equally often, as in a conditional model's samples, it is so in every part too: a
    random part would have random shares of the classes, which all samples together have not, and would be too far off.
    """
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    if labels is None:
        return order
    labels = labels.cpu()
    counts = labels.unique(return_counts=True)[1]
    balanced = int(counts.max() - counts.min()) <= 1
    return order[labels[order].argsort(stable=True)] if balanced else order
