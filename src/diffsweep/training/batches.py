"""Batches from data that lie on the device as uint8: step k's batch is a function of (data, seed, k) only.

Every rank draws the whole batch's randomness and keeps its share, so a training means the same on any number of
devices. One index_select replaces the workers, transforms and copies of a loader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from diffsweep.mistakes import BadValue
from diffsweep.random_streams import generator
from diffsweep.settings import TrainingSettings

Draw = Callable[[tuple[int, ...], torch.Generator], tuple[Tensor, Tensor]]


class Batch(NamedTuple):
    """One rank's share of a batch: x0 as stored, labels, uniforms for the times, unit noise."""

    x0: Tensor
    labels: Tensor
    u: Tensor
    eps: Tensor


@dataclass(frozen=True)
class Batches:
    """The batches of a training, in order, from step ``start`` on.

    Args:
        x: All examples, uint8 (N, C, H, W) or float32 (N, D), on the device.
        labels: int64 (N,), on the device.
        draw: A diffuser's ``draw``: what is random in a batch.
        settings: Number of steps, size over all ranks and seed; whether images are mirrored left to right with
            probability 1/2; the share of the labels that become ``classes``, "no label", so that the model can be
            guided away from its unconditional self (Classifier-Free Diffusion Guidance, arXiv 2207.12598, algorithm 1).
        classes: Number of labels; 0 leaves them alone.
        start: First step to yield, that of the checkpoint.
        rank: This process.
        ranks: Number of processes; must divide the batch size.
        shape: Of an example as the network sees it; None if as stored.

    Raises:
        ValueError: if the processes cannot share the batch evenly.
    """

    x: Tensor
    labels: Tensor
    draw: Draw
    settings: TrainingSettings
    classes: int = 0
    start: int = 0
    rank: int = 0
    ranks: int = 1
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        size = self.settings.batch_size
        if size % self.ranks:
            raise BadValue("training.batch_size", size, f"cannot be shared evenly by {self.ranks} devices")

    def __len__(self) -> int:
        return self.settings.steps

    def __iter__(self) -> Iterator[Batch]:
        settings, size = self.settings, self.settings.batch_size
        order, epoch = torch.empty(0), -1
        device = self.x.device
        for step in range(self.start, settings.steps):
            positions = torch.arange(step * size + self.rank, (step + 1) * size, self.ranks)
            epochs = positions // len(self.x)
            chosen = torch.empty_like(positions)
            for wanted in epochs.unique().tolist():
                if wanted != epoch:
                    order = torch.randperm(len(self.x), generator=generator(settings.seed, "epoch", wanted))
                    epoch = wanted
                here = epochs == wanted
                chosen[here] = order[positions[here] % len(self.x)]
            stream = generator(settings.seed, "step", step)
            u, eps = self.draw((size, *(self.shape or self.x.shape[1:])), stream)
            mirrored = torch.rand(size, generator=stream) < 0.5
            dropped = torch.rand(size, generator=stream) < (settings.drop_labels if self.classes else 0)
            mine = slice(self.rank, None, self.ranks)
            chosen = chosen.to(device)
            x0 = self.x[chosen]
            if settings.flip:
                where = mirrored[mine].to(device).view(-1, *[1] * (x0.ndim - 1))
                x0 = torch.where(where, x0.flip(-1), x0)
            labels = self.labels[chosen].masked_fill(dropped[mine].to(device), self.classes)
            yield Batch(x0, labels, u[mine].to(device), eps[mine].to(device))
