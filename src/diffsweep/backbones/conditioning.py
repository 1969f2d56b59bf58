"""The network hears where it stands as features of log-SNR: c = MLP([cos(f_k logsnr), sin(f_k logsnr)]) + table[label].

Log-SNR, unlike t, means the same thing under every schedule: one trained network can be read at the levels of another.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LIMIT = 20.0


def fourier(logsnr: Tensor, features: int) -> Tensor:
    """Cosines and sines of log-SNR at `features // 2` geometric frequencies, of periods 80 down to 1.

    `logsnr` (N,) is clamped to [-20, 20] first, so that the end points of a schedule (-inf, inf) are ordinary inputs.
    Returns (N, features - features % 2) in at least float32. The sinusoidal embedding is that of "Attention Is All You
    Need" (arXiv 1706.03762), with log-SNR in the place of a position as in "Variational Diffusion Models" (2107.00630).
    """
    half = features // 2
    dtype = torch.promote_types(logsnr.dtype, torch.float32)
    exponents = torch.linspace(0, 1, half, dtype=dtype, device=logsnr.device)
    frequencies = (2 * math.pi / 80) * 80**exponents
    angles = logsnr.to(dtype).clamp(-LIMIT, LIMIT)[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class Conditioning(nn.Module):
    """(logsnr, label) -> one vector of `width` numbers per example.

    `classes` > 0 gives the label table one extra row, the last: index `classes`, or no labels at all, means "no label",
    which is what classifier-free guidance compares with (arXiv 2207.12598).
    """

    def __init__(self, features: int, width: int, classes: int) -> None:
        super().__init__()
        self.features, self.classes = features - features % 2, classes
        self.inner = nn.Linear(self.features, width)
        self.outer = nn.Linear(width, width)
        self.labels = nn.Embedding(classes + 1, width) if classes else None

    def forward(self, logsnr: Tensor, condition: Tensor | None = None) -> Tensor:
        """`logsnr` (N,), `condition` int64 (N,) in [0, classes] or None. Returns (N, width)."""
        features = fourier(logsnr, self.features).to(self.inner.weight.dtype)
        vector = self.outer(F.silu(self.inner(features)))
        if self.labels is None:
            if condition is not None:
                raise ValueError("this backbone has no classes but got labels: set backbone.classes to their number")
            return vector
        if condition is None:
            condition = torch.full(logsnr.shape, self.classes, device=logsnr.device)
        return vector + self.labels(condition)
