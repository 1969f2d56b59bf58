"""What each sample is asked for: a function of its number, so that columns of a report mean one request everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffsweep.conditioners.conditioned import read_condition
from diffsweep.conditioners.conditioner import Conditioner, InTurn, prepare
from diffsweep.data.examples import Dataset, Examples
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
        chosen_labels: Labels that samples are asked for in turn, in the place of their own.
        negative_label: The label that guidance leads away from; None for none.
        pictures: As stored, (M, ...): what is read from held-out examples is read from these in turn; None for those.

    Raises:
        ValueError: for labels that the data do not have, or where nothing is told a label.
    """

    conditioners: Mapping[str, Conditioner]
    dataset: Dataset
    chosen_labels: Sequence[int] = ()
    negative_label: int | None = None
    pictures: Tensor | None = None

    def __post_init__(self) -> None:
        negative = () if self.negative_label is None else (self.negative_label,)
        if self.pictures is not None and all(isinstance(one, InTurn) for one in self.conditioners.values()):
            raise ValueError(
                "pictures cannot be asked for: this model is told nothing that is read from a picture, as edges are "
                "(condition=edges, superres)"
            )
        for label in (*self.chosen_labels, *negative):
            if "label" not in self.conditioners:
                raise ValueError(f"label {label} cannot be asked for: this model is told no label (condition=label)")
            if not 0 <= label < self.dataset.classes:
                raise ValueError(
                    f"label {label} is none of dataset={self.dataset.name}: 0 to {self.dataset.classes - 1}"
                )

    @cached_property
    def _held_out(self) -> Source:
        held_out = self.dataset.load("test")
        prepare(self.conditioners.values(), held_out)
        return held_out

    def __call__(self, numbers: Tensor) -> Condition | None:
        """What the samples of these numbers, int64 (N,), are asked for, where the numbers are.

        Raises:
            ValueError: for data that cannot be read, or have nothing of the kind.
        """
        if not self.conditioners:
            return None
        condition = self._own(numbers)
        if self.chosen_labels:
            chosen = torch.tensor(self.chosen_labels, device=numbers.device)[numbers % len(self.chosen_labels)]
            condition = Condition({**condition.entries, **Condition.of(label=chosen).entries})
        if self.negative_label is None:
            return condition
        label = Condition.of(label=torch.full_like(numbers, self.negative_label))
        return Condition(condition.entries, negative=Condition({**condition.absent().entries, **label.entries}))

    def _own(self, numbers: Tensor) -> Condition:
        in_turn = {name: one for name, one in self.conditioners.items() if isinstance(one, InTurn)}
        if len(in_turn) == len(self.conditioners):
            return Condition({name: one.in_turn(numbers) for name, one in in_turn.items()})
        if self.pictures is not None:
            given = Examples(self.pictures[numbers.cpu() % len(self.pictures)])
            entries = {name: one.in_turn(numbers) for name, one in in_turn.items()}
            read = {name: one.read(given) for name, one in self.conditioners.items() if name not in in_turn}
            return Condition({**entries, **Condition(read).to(numbers.device).entries})
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
