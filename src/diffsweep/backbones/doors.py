"""The three doors by which a network takes in what it is told beside the noise level: a vector, tokens, a map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class Doors:
    """Which doors a network has; None for one that it lacks.

    Attributes:
        vector: Numbers of the vector that is added to that of the log-SNR, which scales and shifts (FiLM, adaLN).
        tokens: Numbers of each token of a sequence that the network attends to.
        map: Channels of the map that is added to what its first layer gives.
        patch: Positions a side of the squares or cubes of an example that become one position of that map.
    """

    vector: int | None = None
    tokens: int | None = None
    map: int | None = None
    patch: int = 1

    def open(self) -> list[str]:
        """The names of the doors that are there."""
        return [name for name in ("vector", "tokens", "map") if getattr(self, name) is not None]


@dataclass(frozen=True, eq=False)
class Embeddings:
    """What comes in by the doors for N examples; None where there is nothing.

    Attributes:
        vector: (N, `Doors.vector`).
        tokens: (N, L, `Doors.tokens`).
        mask: bool (N, L), which tokens count, at least one of each example; None with `tokens` None.
        map: (N, `Doors.map`, *sizes), with the sizes of an example over `Doors.patch`.
    """

    vector: Tensor | None = None
    tokens: Tensor | None = None
    mask: Tensor | None = None
    map: Tensor | None = None

    @staticmethod
    def together(parts: Iterable[Embeddings]) -> Embeddings:
        """Vectors and maps added, tokens one after another."""
        parts = list(parts)
        vectors = [part.vector for part in parts if part.vector is not None]
        maps = [part.map for part in parts if part.map is not None]
        tokens = [part.tokens for part in parts if part.tokens is not None]
        masks = [part.mask for part in parts if part.mask is not None]
        return Embeddings(
            vector=_sum(vectors),
            tokens=torch.cat(tokens, 1) if tokens else None,
            mask=torch.cat(masks, 1) if masks else None,
            map=_sum(maps),
        )


def _sum(values: list[Tensor]) -> Tensor | None:
    total = values[0] if values else None
    for value in values[1:]:
        total = value if total is None else total + value
    return total


@runtime_checkable
class HasDoors(Protocol):
    """A network with doors: called with (x, logsnr, embeddings), the last an `Embeddings` or None."""

    @property
    def doors(self) -> Doors:
        """Those that it has."""
        ...
