"""What a network must offer so that a trained copy of its encoder can steer it, as in ControlNet."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from diffsweep.backbones.doors import Doors, Embeddings


@runtime_checkable
class Encoder(Protocol):
    """An encoder with doors."""

    @property
    def doors(self) -> Doors:
        """Those that it has."""
        ...

    def features(self, x: Tensor, logsnr: Tensor, embeddings: Embeddings | None = None) -> list[Tensor]:
        """What it gives, to which residuals are added. Arguments as of a network's call; of one that `Hears`, too."""
        ...


@runtime_checkable
class Controllable(Protocol):
    """A network whose encoder gives features, to which residuals can be added on the way to its decoder."""

    def encoder_copy(self) -> nn.Module:
        """A copy of its encoder, an `Encoder` without other weights. Raises ValueError if it cannot be steered."""
        ...

    def silent_layers(self) -> nn.ModuleList:
        """New layers, one for each of the features and of its shape, whose outputs are zero."""
        ...

    def __call__(
        self, x: Tensor, logsnr: Tensor, told: Any = None, residuals: Sequence[Tensor] | None = None
    ) -> Tensor:
        """The network's output, with residuals added to its features.

        `told` are embeddings, or the condition itself for a network that `Hears`.
        """
        ...


@runtime_checkable
class Hears(Protocol):
    """A network, or its encoder, that takes in some entries of a condition itself, and is called with `condition`.

    Attributes:
        hears: Their names.
    """

    hears: Collection[str]
