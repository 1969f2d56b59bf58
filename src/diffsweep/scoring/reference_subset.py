"""A part of the real data, chosen at random once and for all: a small reference, for runs that try things out.

Its digest and its number of examples are others than those of all of the data, so results of both are never compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffsweep.evaluation.extractor import sha256
from diffsweep.evaluation.reference import RealData, RealExamples


@dataclass(frozen=True, eq=False)
class ReferenceSubset:
    """Some examples of real data, as real data.

    Attributes:
        whole: all of them.
        numbers: those that belong to it, int64 (M,), without repetition, in increasing order.
    """

    whole: RealData
    numbers: Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def labels(self) -> Tensor:
        """Labels of its examples, int64 (M,)."""
        return self.whole.labels[self.numbers]

    def take(self, numbers: Tensor, /) -> RealExamples:
        """The examples of these numbers, int64 (N,) in 0..M-1, in that order."""
        return self.whole.take(self.numbers[numbers])

    def digest(self) -> str:
        """The identity of the chosen data: that of all of them, and the choice."""
        return sha256("subset", self.whole.digest(), self.numbers.numpy().tobytes())


def reference_subset(real: RealData, most: int | None) -> RealData:
    """At most so many of the real data, the same ones always; None for all of them."""
    if most is None or most >= len(real):
        return real
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))
    return ReferenceSubset(real, order[:most].sort().values)
