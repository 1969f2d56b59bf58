"""What each sample is asked for: a function of its number, so that columns of a report mean one request everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffsweep.conditioners.conditioned import read_condition
from diffsweep.conditioners.conditioner import Conditioner, InTurn
from diffsweep.data.examples import Dataset
from diffsweep.data.source import Source
from diffsweep.diffusion.condition import Condition


@dataclass(frozen=True, eq=False)
class Requests:
    """The condition of numbered samples.

    Labels alone come in turn. Anything else is read from a held-out example, and everything from the same one: sample i
    is asked for what example i of the test split shows, from its beginning again after its end.

    Attributes:
        conditioners: By the names of their entries; empty for samples that are asked for nothing.
        dataset: Of the held-out examples.
    """

    conditioners: Mapping[str, Conditioner]
    dataset: Dataset

    @cached_property
    def _held_out(self) -> Source:
        return self.dataset.load("test")

    def __call__(self, numbers: Tensor) -> Condition | None:
        """What the samples of these numbers, int64 (N,), are asked for, where the numbers are.

        Raises:
            ValueError: for data that cannot be read, or have nothing of the kind.
        """
        in_turn = {name: one for name, one in self.conditioners.items() if isinstance(one, InTurn)}
        if not self.conditioners:
            return None
        if len(in_turn) == len(self.conditioners):
            return Condition({name: one.in_turn(numbers) for name, one in in_turn.items()})
        if not len(self._held_out):
            raise ValueError(f"dataset={self.dataset.name} has no held-out examples to ask for")
        examples = self._held_out.take(numbers.cpu() % len(self._held_out))
        condition = read_condition(self.conditioners, examples)
        assert condition is not None
        return condition.to(numbers.device)

    def labels(self, n: int) -> Tensor | None:
        """The labels int64 (n,) that the first n samples are asked for, on the CPU; None without any."""
        if "label" not in self.conditioners:
            return None
        condition = self(torch.arange(n))
        return None if condition is None else condition["label"].value
