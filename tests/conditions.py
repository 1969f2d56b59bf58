"""Conditions for tests."""

import torch
from torch import Tensor, nn

from diffsweep.conditioners import Label
from diffsweep.conditioners.conditioned import Conditioned
from diffsweep.diffusion import Condition, Entry


def labels_or_none(labels: Tensor, classes: int) -> Condition:
    """The condition of labels int64 (N,) of which `classes` means "no label"."""
    return Condition({"label": Entry(labels, labels != classes)})


def labelled(backbone: nn.Module, classes: int) -> Conditioned:
    """A network that is told labels."""
    return Conditioned(backbone, {"label": Label(classes)})


def label(*labels: int) -> Condition:
    """The condition of these labels, one for each example."""
    return Condition.of(label=torch.tensor(labels))
