"""The network of DiT's and SiT's published weights, with their names, so that a state_dict of theirs fits as it is."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffsweep.mistakes import whole

_FREQUENCIES = 256


class DiT(nn.Module):
    """Scalable Diffusion Models with Transformers (arXiv 2212.09748); SiT (arXiv 2401.08740) has the same network.

    Args:
        channels: Of the data.
        size: Height and width of the data.
        patch: Side of a patch.
        width: Of the tokens.
        depth: Number of blocks.
        heads: Of attention.
        classes: Number of labels; the table has one row more, for none.
        outputs: Channels of the answer: those of the data, twice as many with a learned variance.

    Raises:
        ValueError: for numbers that do not go together.
    """

    def __init__(
        self, channels: int, size: int, patch: int, width: int, depth: int, heads: int, classes: int, outputs: int
    ) -> None:
        super().__init__()
        for name, value in (("depth", depth), ("heads", heads), ("classes", classes), ("patch", patch)):
            whole(name, value, 1, 100_000)
        if width % heads or size % patch:
            raise ValueError(f"heads={heads} must divide width={width}, and patch={patch} size={size}")
        self.classes, self.absent = classes, classes
        self.shape: tuple[int | None, ...] | None = (channels, size, size)
        self.outputs, self.patch = outputs, patch
        self.model = _Network(channels, size // patch, patch, width, depth, heads, classes, outputs)

    def forward(self, x: Tensor, level: Tensor, labels: Tensor | None = None) -> Tensor:
        """`x` (N, C, H, W), `level` (N,), `labels` int64 (N,). Returns x's shape; a learned variance is left out."""
        if labels is None:
            labels = torch.full((len(x),), self.absent, device=x.device)
        return self.model(x, level, labels)[:, : x.shape[1]]


class _Network(nn.Module):
    def __init__(
        self, channels: int, side: int, patch: int, width: int, depth: int, heads: int, classes: int, outputs: int
    ) -> None:
        super().__init__()
        self.patch, self.outputs = patch, outputs
        # The names of the parts are those of the published weights.
        embedding = nn.Sequential(nn.Linear(_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.x_embedder = nn.ModuleDict({"proj": nn.Conv2d(channels, width, patch, stride=patch)})
        self.t_embedder = nn.ModuleDict({"mlp": embedding})
        self.y_embedder = nn.ModuleDict({"embedding_table": nn.Embedding(classes + 1, width)})
        self.pos_embed = nn.Parameter(torch.zeros(1, side**2, width), requires_grad=False)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.final_layer = nn.ModuleDict(
            {
                "linear": nn.Linear(width, patch**2 * outputs),
                "adaLN_modulation": nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width)),
            }
        )

    def forward(self, x: Tensor, level: Tensor, labels: Tensor) -> Tensor:
        half = _FREQUENCIES // 2
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=x.device) / half)
        angles = level.float()[:, None] * frequencies
        waves = torch.cat([angles.cos(), angles.sin()], 1).to(self.pos_embed.dtype)
        c = self.t_embedder["mlp"](waves) + self.y_embedder["embedding_table"](labels)
        tokens = self.x_embedder["proj"](x)
        rows = tokens.shape[2]
        h = tokens.flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            h = block(h, c)
        shift, scale = self.final_layer["adaLN_modulation"](c)[:, None].chunk(2, -1)
        y = self.final_layer["linear"](_modulated(h, shift, scale))
        y = y.view(len(x), rows, -1, self.patch, self.patch, self.outputs)
        return torch.einsum("nhwpqc->nchpwq", y).flatten(4, 5).flatten(2, 3)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        shift, scale, gate, shift_2, scale_2, gate_2 = self.adaLN_modulation(c)[:, None].chunk(6, -1)
        n, length, width = h.shape
        qkv = self.attn["qkv"](_modulated(h, shift, scale)).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*qkv).transpose(1, 2).reshape(n, length, width)
        h = h + gate * self.attn["proj"](mixed)
        inner = F.gelu(self.mlp["fc1"](_modulated(h, shift_2, scale_2)), approximate="tanh")
        return h + gate_2 * self.mlp["fc2"](inner)


def _modulated(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift
