"""The class of an example, one of a fixed number: a table with a row for each, and one for "no label"."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffsweep.backbones.doors import Doors, Embeddings
from diffsweep.conditioners.conditioner import width_of
from diffsweep.data.examples import Examples
from diffsweep.diffusion.condition import Entry
from diffsweep.mistakes import BadValue, share, whole


@dataclass(frozen=True)
class Label:
    """Tells a model the class, as a vector (Classifier-Free Diffusion Guidance, arXiv 2207.12598).

    Args:
        classes: Number of classes of the data, >= 1.
        drop: Share of the examples that are trained without it, in [0, 1).

    Raises:
        ValueError: for a value out of range.
    """

    classes: int
    drop: float = 0.1

    def __post_init__(self) -> None:
        if self.classes == 0:
            raise BadValue("classes", 0, "is what the dataset says: it has no labels; leave condition=label out")
        whole("classes", self.classes, 1)
        share("drop", self.drop, one=False)

    def read(self, examples: Examples) -> Entry:
        """See `Conditioner.read`."""
        return _present(examples.labels)

    def blank(self, n: int) -> Entry:
        """See `Conditioner.blank`."""
        return Entry(torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.bool))

    def in_turn(self, numbers: Tensor) -> Entry:
        """See `InTurn.in_turn`: sample i is of class i mod `classes`."""
        return _present(numbers % self.classes)

    def module(self, doors: Doors) -> nn.Module:
        """See `Conditioner.module`."""
        return LabelTable(self.classes, width_of(doors.vector, "vector", "label", doors))


def imported_label(classes: int, network_classes: int) -> Label | None:
    """The label for a model that was trained elsewhere; None where that is told none.

    Args:
        classes: Of the data.
        network_classes: Labels that the model is told, 0 for none.
    """
    return Label(classes, drop=0.0) if network_classes and classes else None


class LabelTable(nn.Module):
    """A vector for each class, and one for "no label", the last row."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.classes = classes
        self.table = nn.Embedding(classes + 1, width)

    def forward(self, entry: Entry) -> Embeddings:
        """The vectors (N, width) of an entry with values int64 (N,)."""
        return Embeddings(vector=self.table(entry.value.masked_fill(~entry.present, self.classes)))


def _present(labels: Tensor) -> Entry:
    return Entry(labels, torch.ones_like(labels, dtype=torch.bool))
