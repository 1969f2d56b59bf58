"""A backbone of the project's own: a plain perceptron that is given the log-SNR beside the point."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffsweep.backbones.doors import Doors, Embeddings


class PlainMLP(nn.Module):
    """A backbone for points, called with (x, logsnr, embeddings).

    Args:
        shape: of one example, (dimensions,).
        width: hidden units.
        depth: hidden layers.
    """

    def __init__(self, shape: list[int], width: int, depth: int) -> None:
        super().__init__()
        # What it is told, as a label, comes as a vector of this width: condition=label makes it.
        self.doors = Doors(vector=width)
        self.enter = nn.Linear(shape[0] + 1, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.leave = nn.Linear(width, shape[0])

    def forward(self, x: Tensor, logsnr: Tensor, embeddings: Embeddings | None = None) -> Tensor:
        """`x` (N, dimensions), `logsnr` (N,). Returns a tensor like `x`."""
        h = self.enter(torch.cat([x, logsnr[:, None] / 10], 1))
        if embeddings is not None and embeddings.vector is not None:
            h = h + embeddings.vector
        for layer in self.hidden:
            h = h + nn.functional.silu(layer(h))
        return self.leave(h)
