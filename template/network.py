"""A backbone of the project's own: a plain perceptron that is given the log-SNR beside the point."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PlainMLP(nn.Module):
    """A backbone for points, called with (x, logsnr, condition).

    Args:
        shape: of one example, (dimensions,).
        width: hidden units.
        depth: hidden layers.
        classes: number of labels that it is told; 0 for none.
    """

    def __init__(self, shape: list[int], width: int, depth: int, classes: int) -> None:
        super().__init__()
        # One more than there are classes: the last stands for "no label", which guidance needs.
        self.labels = nn.Embedding(classes + 1, width)
        self.enter = nn.Linear(shape[0] + 1, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.leave = nn.Linear(width, shape[0])
        self.none = classes

    def forward(self, x: Tensor, logsnr: Tensor, condition: Tensor | None = None) -> Tensor:
        """`x` (N, dimensions), `logsnr` (N,), `condition` int64 (N,) or None. Returns a tensor like `x`."""
        labels = torch.full_like(logsnr, self.none, dtype=torch.int64) if condition is None else condition
        h = self.enter(torch.cat([x, logsnr[:, None] / 10], 1)) + self.labels(labels)
        for layer in self.hidden:
            h = h + nn.functional.silu(layer(h))
        return self.leave(h)
