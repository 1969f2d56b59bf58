"""What a network must offer so that a trained copy of its encoder can steer it, as in ControlNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from diffsweep.backbones.doors import Doors, Embeddings


@runtime_checkable
class Controllable(Protocol):
    """A network with doors whose encoder gives features, to which residuals can be added on the way to its decoder."""

    @property
    def doors(self) -> Doors:
        """Those that it has."""
        ...

    def features(self, x: Tensor, logsnr: Tensor, embeddings: Embeddings | None = None) -> list[Tensor]:
        """What its encoder gives, to which residuals are added. Arguments as of a call."""
        ...

    def encoder_copy(self) -> nn.Module:
        """A copy with those parts only that `features` needs, which has the doors of the original."""
        ...

    def silent_layers(self) -> nn.ModuleList:
        """New layers, one for each of the features and of its shape, whose outputs are zero."""
        ...

    def __call__(
        self,
        x: Tensor,
        logsnr: Tensor,
        embeddings: Embeddings | None = None,
        residuals: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """The network's output, with residuals added to its features."""
        ...
