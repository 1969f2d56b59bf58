"""Sources: a split of a dataset that is read by number, wherever its examples lie: in memory, in a file, in many files.

Only what is asked for is read, so a source may be larger than the memory. `Examples` (in `data.examples`) is the source
that lies in memory; a dataset of one's own may give any object that has the four members of `Source`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffsweep.data.examples import Examples


class Source(Protocol):
    """A split of a dataset: examples 0 to N - 1, in an order that never changes.

    `take` may be called by several threads at once.
    """

    def __len__(self) -> int:
        """How many examples there are, N."""
        ...

    @property
    def labels(self) -> Tensor:
        """The class of every example, int64 (N,) in memory; 0 everywhere where there are no classes."""
        ...

    def take(self, numbers: Tensor) -> Examples:
        """The examples of these numbers, int64 (M,) in 0..N-1, in that order; a number may stand there twice."""
        ...

    def digest(self) -> str:
        """The identity of the data: other text if any value, label or their order is another."""
        ...


@runtime_checkable
class AugmentedSource(Protocol):
    """A source that can give each example in many variants, as random crops; `take` gives a fixed one of them."""

    def augmented(self, numbers: Tensor, seeds: Tensor) -> Examples:
        """The examples of these numbers, int64 (M,), each varied by its seed, int64 (M,) >= 0, and by nothing else."""
        ...


@runtime_checkable
class MappedSource(Protocol):
    """A source whose examples lie in one file that is mapped into memory, which the processes of a machine share."""

    def mapped(self) -> Examples:
        """All examples; a page of the file is read when it is first touched."""
        ...


def stored_bytes(source: Source) -> int:
    """Bytes that all examples of a source take as stored, without their entries."""
    one = source.take(torch.zeros(min(1, len(source)), dtype=torch.int64)).x
    return one.numel() * one.element_size() * len(source)


def in_memory(source: Source, device: torch.device, chunk: int = 1024) -> Examples:
    """All examples of a source on a device, with everything that is known of them; texts stay where they are.

    What lies in memory already is not copied if the device is the CPU. Nor is what is mapped into it.

    Args:
        source: that fits there.
        device: where they are wanted.
        chunk: how many are read at a time.
    """
    from diffsweep.data.examples import Examples

    if device.type == "cpu":
        if isinstance(source, Examples):
            return source
        if isinstance(source, MappedSource):
            return source.mapped()
    first = source.take(torch.arange(min(1, len(source))))
    like = {name: entry for name, entry in first.entries.items() if name != "label" and isinstance(entry, torch.Tensor)}
    texts: dict[str, list[str]] = {
        name: [] for name, entry in first.entries.items() if not isinstance(entry, torch.Tensor)
    }
    x, *others = (
        torch.empty((len(source), *value.shape[1:]), dtype=value.dtype, device=device)
        for value in (first.x, *like.values())
    )
    for numbers in torch.arange(len(source)).split(chunk):
        part, rows = source.take(numbers), slice(int(numbers[0]), int(numbers[-1]) + 1)
        x[rows] = part.x.to(device)
        for name, other in zip(like, others, strict=True):
            other[rows] = torch.as_tensor(part.entries[name]).to(device)
        for name, found in texts.items():
            found.extend(map(str, part.entries[name]))
    return Examples(x, source.labels.to(device), dict(zip(like, others, strict=True)) | texts)


def texts_of(source: Source, name: str, chunk: int = 1024) -> Sequence[str] | None:
    """All texts of an entry of a source, in its order; None if it has no such entry, or numbers there.

    Args:
        source: of any kind; where it lies in memory or is mapped into it, no example is read.
        name: of the entry, as `caption`.
        chunk: how many examples are read at a time.
    """
    from diffsweep.data.examples import Examples

    here = source.mapped() if isinstance(source, MappedSource) else source
    if isinstance(here, Examples):
        found = here.entries.get(name)
        return None if found is None or isinstance(found, torch.Tensor) else found
    texts: list[str] = []
    for numbers in torch.arange(len(source)).split(chunk):
        part = source.take(numbers).entries.get(name)
        if part is None or isinstance(part, torch.Tensor):
            return None
        texts.extend(part)
    return texts
