"""Batches of a training: step k's batch is a function of (data, seed, k) only.

Every rank draws the whole batch's randomness and keeps its share, so a training means the same on any number of
devices. Data that fit on the device lie there, and one index_select replaces the workers, transforms and copies of a
loader; what does not fit is read ahead by threads, each of which makes whole batches, which changes no batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import psutil
import torch
from torch import Tensor

from diffsweep.data.examples import Examples
from diffsweep.data.source import AugmentedSource, Source, in_memory, stored_bytes
from diffsweep.mistakes import BadValue
from diffsweep.random_streams import generator
from diffsweep.settings import LoadingSettings, TrainingSettings

CPU = torch.device("cpu")

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
        source: All examples; on the device if they lie there (see ``resident``).
        draw: A diffuser's ``draw``: what is random in a batch.
        settings: Number of steps, size over all ranks and seed; whether images are mirrored left to right with
            probability 1/2; the share of the labels that become ``classes``, "no label", so that the model can be
            guided away from its unconditional self (Classifier-Free Diffusion Guidance, arXiv 2207.12598, algorithm 1).
        classes: Number of labels; 0 leaves them alone.
        start: First step to yield, that of the checkpoint.
        rank: This process.
        ranks: Number of processes; must divide the batch size.
        shape: Of an example as the network sees it; None if as stored.
        device: Where batches are wanted.
        loading: How examples are read ahead; None to take them when they are needed.

    Raises:
        ValueError: if the processes cannot share the batch evenly.
    """

    source: Source
    draw: Draw
    settings: TrainingSettings
    classes: int = 0
    start: int = 0
    rank: int = 0
    ranks: int = 1
    shape: tuple[int, ...] | None = None
    device: torch.device = CPU
    loading: LoadingSettings | None = None

    def __post_init__(self) -> None:
        size = self.settings.batch_size
        if size % self.ranks:
            raise BadValue("training.batch_size", size, f"cannot be shared evenly by {self.ranks} devices")

    def __len__(self) -> int:
        return self.settings.steps

    def __iter__(self) -> Iterator[Batch]:
        if self.loading is None:
            for step, numbers in self._numbers():
                yield _moved(self._batch(step, numbers), self.device)
            return
        pin = self.device.type == "cuda"

        def make(step: int, numbers: Tensor) -> Batch:
            batch = self._batch(step, numbers)
            return Batch(*(value.pin_memory() for value in batch)) if pin else batch

        for batch in _read_ahead(make, self._numbers(), self.loading):
            # From pinned memory the copy runs beside the step before.
            yield _moved(batch, self.device)

    def _numbers(self) -> Iterator[tuple[int, Tensor]]:
        """Each step with the numbers of this rank's examples: every epoch goes through all of them in a new order."""
        settings, size, count = self.settings, self.settings.batch_size, len(self.source)
        order, epoch = torch.empty(0), -1
        for step in range(self.start, settings.steps):
            positions = torch.arange(step * size + self.rank, (step + 1) * size, self.ranks)
            epochs = positions // count
            chosen = torch.empty_like(positions)
            for wanted in epochs.unique().tolist():
                if wanted != epoch:
                    order = torch.randperm(count, generator=generator(settings.seed, "epoch", wanted))
                    epoch = wanted
                here = epochs == wanted
                chosen[here] = order[positions[here] % count]
            yield step, chosen

    def _batch(self, step: int, numbers: Tensor) -> Batch:
        """A step's batch, the share of this rank, where the source has its examples."""
        settings, size = self.settings, self.settings.batch_size
        mine = slice(self.rank, None, self.ranks)
        examples = self._take(step, numbers, mine)
        x0, device = examples.x, examples.x.device
        stream = generator(settings.seed, "step", step)
        u, eps = self.draw((size, *(self.shape or x0.shape[1:])), stream)
        mirrored = torch.rand(size, generator=stream) < 0.5
        dropped = torch.rand(size, generator=stream) < (settings.drop_labels if self.classes else 0)
        if settings.flip:
            where = mirrored[mine].to(device).view(-1, *[1] * (x0.ndim - 1))
            x0 = torch.where(where, x0.flip(-1), x0)
        labels = examples.labels.masked_fill(dropped[mine].to(device), self.classes)
        return Batch(x0, labels, u[mine], eps[mine])

    def _take(self, step: int, numbers: Tensor, mine: slice) -> Examples:
        if not isinstance(self.source, AugmentedSource):
            return self.source.take(numbers)
        # A stream of its own: what a source varies must not move the noise.
        stream = generator(self.settings.seed, "augmentation", step)
        seeds = torch.randint(2**62, (self.settings.batch_size,), generator=stream)
        return self.source.augmented(numbers, seeds[mine])


def resident(source: Source, device: torch.device, loading: LoadingSettings) -> Examples | None:
    """All examples on the device, if they may lie there; None if they must be read ahead.

    They may if they take at most the share ``loading.resident`` of the device's free memory, and are the same in every
    epoch. On a CPU, what lies in memory already does so, and a file is mapped, not copied.
    """
    if isinstance(source, AugmentedSource):
        return None
    in_place = isinstance(source, Examples) and device.type == "cpu"
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if loading.resident == 0 or not (in_place or stored_bytes(source) <= loading.resident * free):
        return None
    return in_memory(source, device)


def _moved(batch: Batch, device: torch.device) -> Batch:
    return Batch(*(value.to(device, non_blocking=True) for value in batch))


def _read_ahead(
    make: Callable[[int, Tensor], Batch], numbers: Iterable[tuple[int, Tensor]], loading: LoadingSettings
) -> Iterator[Batch]:
    """What ``make`` makes of each of the steps, in their order; threads work on those to come.

    An error is raised where its batch would have been.
    """
    waiting: deque[Future[Batch]] = deque()
    threads = ThreadPoolExecutor(loading.threads, thread_name_prefix="data")
    try:
        for one in numbers:
            waiting.append(threads.submit(make, *one))
            if len(waiting) >= loading.prefetch + loading.threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)
