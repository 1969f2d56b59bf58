"""Batches of a training: step k's batch is a function of (data, seed, k) only.

What is random in an example follows from its place in the batches, so a training means the same on any number of
devices. Data that fit on the device lie there, and one index_select replaces the workers, transforms and copies of a
loader; what does not fit is read ahead by threads, which changes no batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import psutil
import torch
from torch import Tensor

from diffsweep.conditioners.conditioned import read_condition
from diffsweep.conditioners.conditioner import Conditioner
from diffsweep.data.examples import Examples
from diffsweep.data.source import AugmentedSource, Source, in_memory, stored_bytes
from diffsweep.diffusion.condition import Condition
from diffsweep.mistakes import BadValue
from diffsweep.philox import CounterGenerator
from diffsweep.random_streams import generator
from diffsweep.settings import LoadingSettings, TrainingSettings

CPU = torch.device("cpu")

# Of the shape and a generator: torch's, or the counter's.
Draw = Callable[[tuple[int, ...], Any], tuple[Tensor, Tensor]]


Made = TypeVar("Made")


class Batch(NamedTuple):
    """One rank's share of a batch: x0 as stored, what it is told, uniforms for the times, unit noise."""

    x0: Tensor
    condition: Condition | None
    u: Tensor
    eps: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with all its tensors changed alike."""
        condition = None if self.condition is None else self.condition.map(change)
        return Batch(change(self.x0), condition, change(self.u), change(self.eps))


@dataclass(frozen=True)
class Batches:
    """The batches of a training, in order, from step ``start`` on.

    Args:
        source: All examples; on the device if they lie there (see ``resident``).
        draw: A diffuser's ``draw``: what is random in a batch.
        settings: Number of steps, size over all ranks and seed; whether images are mirrored left to right with
            probability 1/2.
        conditioners: Read what the examples are told, by name. Each leaves out its share of the examples by itself, so
            that a model can be guided away from what it does without (Classifier-Free Diffusion Guidance, arXiv
            2207.12598, algorithm 1).
        start: First step to yield, that of the checkpoint.
        rank: This process.
        ranks: Number of processes; must divide the batch size.
        shape: Of an example as the network sees it; None if as stored.
        device: Where batches are wanted.
        loading: How examples are read ahead; None to take them when they are needed.
        counter: Whether what is random is drawn on the device by a counter, this rank's share only; else every rank
            draws the whole batch's on the CPU.

    Raises:
        ValueError: if the processes cannot share the batch evenly.
    """

    source: Source
    draw: Draw
    settings: TrainingSettings
    conditioners: Mapping[str, Conditioner] = field(default_factory=dict)
    start: int = 0
    rank: int = 0
    ranks: int = 1
    shape: tuple[int, ...] | None = None
    device: torch.device = CPU
    loading: LoadingSettings | None = None
    counter: bool = False

    def __post_init__(self) -> None:
        size = self.settings.batch_size
        if size % self.ranks:
            raise BadValue("training.batch_size", size, f"cannot be shared evenly by {self.ranks} devices")

    def __len__(self) -> int:
        return self.settings.steps

    def __iter__(self) -> Iterator[Batch]:
        if self.loading is None:
            for step, numbers in self._numbers():
                yield self._batch(step, self._take(step, numbers)).map(self._moved)
            return
        pin = self.device.type == "cuda"

        def make(step: int, numbers: Tensor) -> tuple[int, Batch | Examples]:
            examples = self._take(step, numbers)
            if self.counter:
                return step, _pinned(examples) if pin else examples
            batch = self._batch(step, examples)
            return step, batch.map(Tensor.pin_memory) if pin else batch

        for step, made in _read_ahead(make, self._numbers(), self.loading):
            # From pinned memory the copy runs beside the step before.
            batch = made if isinstance(made, Batch) else self._batch(step, _on(made, self.device))
            yield batch.map(self._moved)

    def _numbers(self) -> Iterator[tuple[int, Tensor]]:
        """Each step with the numbers of this rank's examples: every epoch goes through all of them in a new order.

        They are where the examples are, so that to take those is no copy from the host.
        """
        settings, size, count = self.settings, self.settings.batch_size, len(self.source)
        device = self.source.x.device if isinstance(self.source, Examples) else CPU
        order, epoch = torch.empty(0), -1
        for step in range(self.start, settings.steps):
            first, stop = step * size + self.rank, (step + 1) * size
            parts: list[Tensor] = []
            while first < stop:
                wanted, place = divmod(first, count)
                if wanted != epoch:
                    order, epoch = self._order(wanted, device), wanted
                part = order[place : place + stop - first : self.ranks]
                parts.append(part)
                first += len(part) * self.ranks
            yield step, parts[0] if len(parts) == 1 else torch.cat(parts)

    def _order(self, epoch: int, device: torch.device) -> Tensor:
        """All numbers in the order of an epoch."""
        if self.counter:
            everything = torch.arange(len(self.source), device=device)
            places, _ = CounterGenerator(self.settings.seed, f"epoch {epoch}", everything).strata(len(everything))
            return places
        stream = generator(self.settings.seed, "epoch", epoch)
        return torch.randperm(len(self.source), generator=stream).to(device)

    def _batch(self, step: int, examples: Examples) -> Batch:
        """A step's batch, the share of this rank, of its examples, where they are."""
        x0, device = examples.x, examples.x.device
        u, eps, mirrored, dropped = self._random(step, self.shape or tuple(x0.shape[1:]), device)
        if self.settings.flip:
            where = mirrored.to(device).view(-1, *[1] * (x0.ndim - 1))
            x0 = torch.where(where, x0.flip(-1), x0)
        # Of what the model sees: edges must be those of the mirrored image.
        condition = read_condition(self.conditioners, examples.with_x(x0))
        if condition is not None:
            condition = condition.without({name: mask.to(device) for name, mask in dropped.items()})
        return Batch(x0, condition, u, eps)

    def _random(
        self, step: int, shape: tuple[int, ...], device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """What is random in this rank's share of a step's batch: u, eps, who is mirrored, who is not told which entry.

        The entries come last and in the order of their names: one more moves nothing that was drawn before.
        """
        size, mine = self.settings.batch_size, slice(self.rank, None, self.ranks)
        shares = {name: self.conditioners[name].drop for name in sorted(self.conditioners)}
        if self.counter:
            everything = torch.arange(step * size, (step + 1) * size, device=device)
            counter = CounterGenerator(self.settings.seed, "step", everything[mine], everything, mine)
            count = size // self.ranks
            u, eps = self.draw((count, *shape), counter)
            mirrored = counter.rand((count,)) < 0.5
            return u, eps, mirrored, {name: counter.rand((count,)) < share for name, share in shares.items()}
        stream = generator(self.settings.seed, "step", step)
        u, eps = self.draw((size, *shape), stream)
        mirrored = torch.rand(size, generator=stream) < 0.5
        dropped = {name: (torch.rand(size, generator=stream) < share)[mine] for name, share in shares.items()}
        return u[mine], eps[mine], mirrored[mine], dropped

    def _moved(self, value: Tensor) -> Tensor:
        return value.to(self.device, non_blocking=True)

    def _take(self, step: int, numbers: Tensor) -> Examples:
        if not isinstance(self.source, AugmentedSource):
            return self.source.take(numbers)
        # A stream of its own: what a source varies must not move the noise.
        stream = generator(self.settings.seed, "augmentation", step)
        seeds = torch.randint(2**62, (self.settings.batch_size,), generator=stream)
        return self.source.augmented(numbers, seeds[self.rank :: self.ranks])


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


def _on(examples: Examples, device: torch.device) -> Examples:
    return examples.map(lambda value: value.to(device, non_blocking=True))


def _pinned(examples: Examples) -> Examples:
    return examples.map(Tensor.pin_memory)


def _read_ahead(
    make: Callable[[int, Tensor], Made], numbers: Iterable[tuple[int, Tensor]], loading: LoadingSettings
) -> Iterator[Made]:
    """What ``make`` makes of each of the steps, in their order; threads work on those to come.

    An error is raised where its batch would have been.
    """
    waiting: deque[Future[Made]] = deque()
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
