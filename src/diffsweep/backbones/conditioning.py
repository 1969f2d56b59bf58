"""A network is told where it stands by features of log-SNR, c = MLP([cos(f_k logsnr), sin(f_k logsnr)]), to which the
vector of its conditions is added.

Log-SNR, unlike t, means the same thing under every schedule: one trained network can be read at the levels of another.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffsweep.backbones.doors import Embeddings

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
    """(logsnr, embeddings) -> one vector of `width` numbers per example; that of the embeddings is added."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.features = features - features % 2
        self.inner = nn.Linear(self.features, width)
        self.outer = nn.Linear(width, width)

    def forward(self, logsnr: Tensor, embeddings: Embeddings | None = None) -> Tensor:
        """`logsnr` (N,). Returns (N, width)."""
        features = fourier(logsnr, self.features).to(self.inner.weight.dtype)
        vector = self.outer(F.silu(self.inner(features)))
        return vector if embeddings is None or embeddings.vector is None else vector + embeddings.vector
