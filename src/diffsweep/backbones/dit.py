"""A diffusion transformer for images: patches are tokens, each block is told the log-SNR by scales, shifts and gates.

DiT (arXiv 2212.09748) with rotary positions, SwiGLU, and RMS norms, also of queries and keys. `skips` joins
its first half to its second as in U-ViT; `bottleneck` embeds large patches through few channels as in JiT.
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffsweep.backbones import check
from diffsweep.backbones.attention import CrossAttention
from diffsweep.backbones.conditioning import Conditioning
from diffsweep.backbones.doors import Doors, Embeddings
from diffsweep.mistakes import BadValue, flag

# Frequencies of log-SNR that the conditioning sees, as many as DiT's of the timestep.
FEATURES = 256


def angles(height: int, width: int, size: int) -> Tensor:
    """Angles by which the `size // 2` pairs of a head are turned at each position, (height * width, size // 2).

    The first half of the pairs turns with the row, the second with the column, at frequencies 1 down to about 1/100:
    axial rotary positions ("Rotary Position Embedding for Vision Transformer", arXiv 2403.13298, eq. 8).
    """
    frequencies = 100 ** -(torch.arange(size // 4) / (size // 4))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.cat([place.reshape(-1, 1) * frequencies for place in (rows, columns)], dim=1)


def turn(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """`x` (..., tokens, size) with its pairs, number i and i + size / 2, turned by angles of (tokens, size / 2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], dim=-1)


class Attention(nn.Module):
    """Self-attention over all tokens, with rotary positions and queries and keys of unit root mean square.

    Source: "Scaling Vision Transformers to 22 Billion Parameters" (arXiv 2302.05442) for the norm of queries and keys.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.norm_q = nn.RMSNorm(width // heads, eps=1e-6)
        self.norm_k = nn.RMSNorm(width // heads, eps=1e-6)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """`x` (N, tokens, width), the turns of each token (tokens, width / heads / 2). Returns the shape of `x`."""
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k = turn(self.norm_q(q), cosine, sine), turn(self.norm_k(k), cosine, sine)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width))


class SwiGLU(nn.Module):
    """W3 (silu(W1 x) * W2 x), as many weights as a perceptron of four times the width (arXiv 2002.05202, eq. 6)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 8 * -(-width // 3)
        self.inner = nn.Linear(width, 2 * hidden)
        self.outer = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (..., width). Returns the same shape."""
        gate, value = self.inner(x).chunk(2, dim=-1)
        return self.outer(F.silu(gate) * value)


class Block(nn.Module):
    """Attention and a perceptron, each with its input scaled and shifted and its output gated; first the identity.

    The block "adaLN-Zero" of DiT (section 3.2).
    """

    def __init__(self, width: int, heads: int, skip: bool, cross: bool) -> None:
        super().__init__()
        self.join = nn.Linear(2 * width, width) if skip else None
        self.norm_attention = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = Attention(width, heads)
        self.norm_mlp = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = SwiGLU(width)
        self.modulation = nn.Linear(width, 6 * width)
        self.norm_cross = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False) if cross else None
        self.cross = CrossAttention(width, width, heads) if cross else None

    def forward(
        self,
        x: Tensor,
        vector: Tensor,
        cosine: Tensor,
        sine: Tensor,
        skip: Tensor | None = None,
        embeddings: Embeddings | None = None,
    ) -> Tensor:
        """`x` (N, tokens, width), `vector` (N, width), `skip` of the shape of `x`, which is returned."""
        if self.join is not None and skip is not None:
            x = self.join(torch.cat([x, skip], dim=-1))
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(vector)[:, None].chunk(6, dim=-1)
        x = x + gate_a * self.attention(torch.addcmul(shift_a, self.norm_attention(x), 1 + scale_a), cosine, sine)
        if self.cross is not None and self.norm_cross is not None:
            # Without a gate, as in PixArt-alpha (arXiv 2310.00426, section 2.3): its last layer starts at zero.
            x = x + self.cross(self.norm_cross(x), embeddings)
        return x + gate_m * self.mlp(torch.addcmul(shift_m, self.norm_mlp(x), 1 + scale_m))


class DiT(nn.Module):
    """The transformer for images: (x, logsnr, embeddings) -> a tensor like the data, zero at initialisation.

    Args:
        shape: (channels, height, width) of the data; `patch` must divide height and width.
        width: numbers per token, a multiple of 4 times `heads`.
        depth: blocks.
        heads: attention heads.
        patch: the image is cut into patch x patch squares, one token each; cost falls with its square and more.
        bottleneck: channels through which a patch is embedded, for patches of more numbers than matter ("Back to
            Basics: Let Denoising Generative Models Denoise", arXiv 2511.13720, section 4.2); None embeds it at once.
        skips: whether block i of the second half is shown what the i-th last of the first half gave ("All are Worth
            Words: A ViT Backbone for Diffusion Models", arXiv 2209.12152).
        cross_attention: whether it attends to tokens, as those of a text.
        inputs: images stacked along the channels of x, as with an earlier estimate for self-conditioning.
        outputs: images stacked along the channels of the result, as with a learned variance.

    Raises:
        ValueError: if the data are not images or a choice does not fit, naming the choice.

    Source: "Scalable Diffusion Models with Transformers" (arXiv 2212.09748), with positions that are both added to the
    tokens (as there) and turned into queries and keys (arXiv 2403.13298).
    """

    positions: Tensor
    cosine: Tensor
    sine: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 128,
        depth: int = 6,
        heads: int = 4,
        patch: int = 2,
        bottleneck: int | None = None,
        skips: bool = False,
        cross_attention: bool = False,
        inputs: int = 1,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        channels, height, breadth = check.image(shape, "dit")
        check.integers(1, width=width, depth=depth, heads=heads, patch=patch, inputs=inputs, outputs=outputs)
        check.divides("patch", patch, height, breadth)
        flag("skips", skips)
        flag("cross_attention", cross_attention)
        if width % (4 * heads):
            raise BadValue("width", width, f"must be a multiple of 4 times heads={heads}: rows and columns turn pairs")
        if bottleneck is not None:
            check.integers(1, bottleneck=bottleneck)
        self.shape = (inputs * channels, height, breadth)
        self.inputs, self.outputs, self.patch = inputs, outputs, patch
        self.grid = (height // patch, breadth // patch)
        self.doors = Doors(vector=width, tokens=width if cross_attention else None, map=width, patch=patch)
        self.conditioning = Conditioning(FEATURES, width)
        pixels = channels * patch**2
        self.enter: nn.Module = nn.Linear(inputs * pixels, width)
        if bottleneck is not None:
            self.enter = nn.Sequential(nn.Linear(inputs * pixels, bottleneck, bias=False), nn.Linear(bottleneck, width))
        joined = depth // 2 if skips else 0
        self.blocks = nn.ModuleList(
            Block(width, heads, skip=i >= depth - joined, cross=cross_attention) for i in range(depth)
        )
        self.norm = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.leave = nn.Linear(width, outputs * pixels)
        self.joined, self.encoder_depth = joined, -(-depth // 2)

        whole, turns = angles(*self.grid, width), angles(*self.grid, width // heads)
        for name, buffer in (
            ("positions", torch.cat([whole.sin(), whole.cos()], dim=1)),
            ("cosine", turns.cos()),
            ("sine", turns.sin()),
        ):
            self.register_buffer(name, buffer, persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        crossing = [block.cross.out for block in self.blocks if block.cross is not None]  # type: ignore[union-attr]
        for silent in (self.leave, self.modulation, *(block.modulation for block in self.blocks), *crossing):
            nn.init.zeros_(silent.weight)  # type: ignore[arg-type]

    def forward(
        self,
        x: Tensor,
        logsnr: Tensor,
        embeddings: Embeddings | None = None,
        residuals: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """`x` (N, inputs * C, H, W) of about unit variance, `logsnr` (N,) with any value.

        `embeddings` come by the doors; `residuals` are added to what the first blocks give. Returns
        (N, outputs * C, H, W).
        """
        vector, h = self._entered(x, logsnr, embeddings)
        kept: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            skip = kept.pop() if i >= len(self.blocks) - self.joined else None
            h = block(h, vector, self.cosine, self.sine, skip, embeddings)
            if residuals is not None and i < len(residuals):
                h = h + residuals[i]
            if i < self.joined:
                kept.append(h)
        shift, scale = self.modulation(vector)[:, None].chunk(2, dim=-1)
        h = self.leave(torch.addcmul(shift, self.norm(h), 1 + scale))
        return F.pixel_shuffle(h.transpose(1, 2).unflatten(2, self.grid), self.patch)

    def features(self, x: Tensor, logsnr: Tensor, embeddings: Embeddings | None = None) -> list[Tensor]:
        """See `Controllable.features`: what each block of the first half gives, (N, tokens, width)."""
        vector, h = self._entered(x, logsnr, embeddings)
        features: list[Tensor] = []
        for block in self.blocks[: self.encoder_depth]:
            h = block(h, vector, self.cosine, self.sine, None, embeddings)
            features.append(h)
        return features

    def encoder_copy(self) -> nn.Module:
        """See `Controllable.encoder_copy`."""
        copied = copy.deepcopy(self)
        del copied.leave, copied.modulation, copied.norm, copied.blocks[self.encoder_depth :]
        return copied

    def silent_layers(self) -> nn.ModuleList:
        """See `Controllable.silent_layers`."""
        width = self.positions.shape[1]
        layers = nn.ModuleList(nn.Linear(width, width) for _ in range(self.encoder_depth))
        for weight in layers.parameters():
            nn.init.zeros_(weight)
        return layers

    def _entered(self, x: Tensor, logsnr: Tensor, embeddings: Embeddings | None) -> tuple[Tensor, Tensor]:
        """The vector that blocks are told, and the tokens that the first of them is given."""
        check.built_for(x, self.shape, "dit", "images")
        vector = F.silu(self.conditioning(logsnr, embeddings))
        h = self.enter(F.pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2)) + self.positions
        if embeddings is not None and embeddings.map is not None:
            h = h + embeddings.map.flatten(2).transpose(1, 2)
        return vector, h
