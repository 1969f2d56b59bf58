"""A conditioner: how one entry of a condition is read from the data, and how a network takes it in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from diffsweep.backbones.doors import Doors
from diffsweep.data.examples import Examples
from diffsweep.data.source import Source
from diffsweep.diffusion.condition import Entry


class Conditioner(Protocol):
    """One thing that a model is told; an option of the group `condition` makes one.

    Attributes:
        drop: Share of the examples that are trained without it, in [0, 1), so that guidance can compare with that.
    """

    @property
    def drop(self) -> float: ...

    def read(self, examples: Examples) -> Entry:
        """The entry of examples, where they are. Raises ValueError for data that have no such thing."""
        ...

    def blank(self, n: int) -> Entry:
        """The entry of n examples that are told nothing, on the CPU."""
        ...

    def module(self, doors: Doors) -> nn.Module:
        """The part of the network that is trained for it: called with an `Entry`, it gives `Embeddings`.

        Raises:
            ValueError: for a network without the door that it needs.
        """
        ...


@runtime_checkable
class InTurn(Protocol):
    """A conditioner whose values can be gone through in turn: sample i is told one that follows from i alone."""

    def in_turn(self, numbers: Tensor) -> Entry:
        """The entry of the samples of these numbers, int64 (N,)."""
        ...


@runtime_checkable
class PreparesSource(Protocol):
    """A conditioner that makes something of a whole split once, before its examples are read batch by batch."""

    def prepare(self, source: Source) -> None:
        """Do so, or find what was made before. Raises ValueError for data that have no such thing."""
        ...


@runtime_checkable
class ReadsTexts(Protocol):
    """A conditioner that can be asked for by a text, as a prompt."""

    def of_texts(self, texts: Sequence[str]) -> Entry:
        """The entry of texts, on the CPU; "" is "not told". Raises ValueError where they cannot be read."""
        ...

    def texts(self, examples: Examples) -> Sequence[str]:
        """The texts of examples. Raises ValueError for data that have none."""
        ...


@runtime_checkable
class SendsTokens(Protocol):
    """A conditioner that may come as tokens, for which a network must attend to them.

    Attributes:
        tokens: Whether it does.
    """

    @property
    def tokens(self) -> bool: ...


@runtime_checkable
class Verifiable(Protocol):
    """A conditioner whose entry can be read from samples, so that what they show is compared with what was asked for.

    Attributes:
        agreement_by: What `agreement` is, in a few words for the record.
    """

    @property
    def agreement_by(self) -> str: ...

    def agreement(self, entry: Entry, samples: Tensor) -> Tensor:
        """How far samples show what they were asked for, float (N,): 1 for exactly that.

        Args:
            entry: That they were asked for.
            samples: As stored, (N, ...), on the device of the entry.
        """
        ...


def prepare(conditioners: Iterable[Conditioner], source: Source) -> None:
    """Let the conditioners make of a split what they need of the whole of it. Raises ValueError."""
    for one in conditioners:
        if isinstance(one, PreparesSource):
            one.prepare(source)


def width_of(door: int | None, name: str, wanted: str, doors: Doors) -> int:
    """The width of a door that must be there.

    Args:
        door: It, of `doors`.
        name: Its name.
        wanted: The option of the group `condition` that needs it.
        doors: Those of the network.

    Raises:
        ValueError: saying which doors the network has.
    """
    if door is None:
        has = " and ".join(doors.open()) or "nothing"
        raise ValueError(
            f"condition={wanted} comes as a {name}, and this backbone takes {has}: choose another backbone, as "
            "backbone=unet, or leave it out"
        )
    return door
