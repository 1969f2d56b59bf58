"""What a model is told of its examples: named entries, each with its own mask of the examples that have it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True, eq=False)
class Entry:
    """One thing that a model is told of N examples, as the label, or a caption.

    Attributes:
        value: (N, ...): labels int64 (N,), numbers (N,), tokens (N, L, D), maps (N, C, *sizes), as its conditioner
            reads it.
        present: bool (N,): which examples it is told of; the value of the others means nothing.
        mask: bool (N, L), which of the tokens count; None for what is no sequence.
    """

    value: Tensor
    present: Tensor
    mask: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Entry:
        """The entry with all its tensors changed alike, as by taking some rows or moving to a device."""
        return Entry(change(self.value), change(self.present), None if self.mask is None else change(self.mask))

    def without(self, left_out: Tensor) -> Entry:
        """The entry without the examples where ``left_out``, bool (N,), is true."""
        return Entry(self.value, self.present & ~left_out, self.mask)


@final
@dataclass(frozen=True, eq=False)
class Condition:
    """Everything that a model is told of N examples, by name.

    Attributes:
        entries: At least one, all of the same N.
        negative: What guidance leads away from, of the same names and N, as a negative prompt; None for "nothing".
    """

    entries: Mapping[str, Entry]
    negative: Condition | None = None

    @classmethod
    def of(cls, **values: Tensor) -> Condition:
        """Entries that all N examples have: ``Condition.of(label=labels)``."""
        return cls(
            {
                name: Entry(value, torch.ones(len(value), dtype=torch.bool, device=value.device))
                for name, value in values.items()
            }
        )

    def __len__(self) -> int:
        return len(next(iter(self.entries.values())).present)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def __getitem__(self, name: str) -> Entry:
        return self.entries[name]

    def map(self, change: Callable[[Tensor], Tensor]) -> Condition:
        """The condition with all its tensors changed alike."""
        negative = None if self.negative is None else self.negative.map(change)
        return Condition({name: entry.map(change) for name, entry in self.entries.items()}, negative)

    def take(self, rows: Tensor | slice) -> Condition:
        """That of some of the examples: a slice, or their numbers int64 (M,)."""
        return self.map(lambda value: value[rows])

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Condition:
        """The condition on a device."""
        return self.map(lambda value: value.to(device, non_blocking=non_blocking))

    def absent(self, names: Collection[str] | None = None) -> Condition:
        """The same without the entries of these names, or without any."""
        return Condition(
            {
                name: entry.without(torch.ones_like(entry.present)) if names is None or name in names else entry
                for name, entry in self.entries.items()
            }
        )

    def opposite(self) -> Condition:
        """What guidance compares with: the negative condition, or nothing."""
        return self.absent() if self.negative is None else self.negative

    def without(self, left_out: Mapping[str, Tensor]) -> Condition:
        """Each entry without the examples where its mask, bool (N,), is true; a name without a mask is left alone."""
        return Condition(
            {name: entry.without(left_out[name]) if name in left_out else entry for name, entry in self.entries.items()}
        )

    @staticmethod
    def cat(conditions: Sequence[Condition]) -> Condition:
        """That of several lists of examples, one after another; all have the same names and shapes."""
        first = conditions[0]
        return Condition({name: _joined([one[name] for one in conditions]) for name in first})


def _joined(entries: Sequence[Entry]) -> Entry:
    masks = [entry.mask for entry in entries if entry.mask is not None]
    return Entry(
        torch.cat([entry.value for entry in entries]),
        torch.cat([entry.present for entry in entries]),
        torch.cat(masks) if masks else None,
    )
