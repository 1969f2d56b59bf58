"""Attention of the positions of an example to the tokens of a sequence, as those of a text."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from diffsweep.backbones.doors import Embeddings


class CrossAttention(nn.Module):
    """Queries of positions, keys and values of tokens (High-Resolution Image Synthesis with Latent Diffusion Models,
    arXiv 2112.10752, section 3.3); zero at initialisation.

    Args:
        width: numbers per position, a multiple of `heads`.
        tokens: numbers per token.
        heads: attention heads.
    """

    def __init__(self, width: int, tokens: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(tokens, 2 * width, bias=False)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, embeddings: Embeddings | None) -> Tensor:
        """What is added to `x` (N, positions, width); zero without tokens."""
        if embeddings is None or embeddings.tokens is None:
            return x.new_zeros(()).expand_as(x)
        n, positions, width = x.shape
        q = self.q(x).view(n, positions, self.heads, width // self.heads).transpose(1, 2)
        k, v = self.kv(embeddings.tokens).view(n, -1, 2, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mask = None if embeddings.mask is None else embeddings.mask[:, None, None, :]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).reshape(n, positions, width))
