"""A compact U-Net in 1 to 3 dimensions: residual blocks at halving sizes, told the log-SNR by scale and shift (FiLM).

Sizes change by space-to-depth and back with a 1x1 convolution, which loses nothing and costs a ninth of a 3x3: `patch`
does the same to the example itself, the cheapest way to a fast network on a CPU. The same network serves sounds
(channels, time), images (channels, height, width), videos and volumes (channels, time or depth, height, width).
"""

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffsweep.backbones import check
from diffsweep.backbones.attention import CrossAttention
from diffsweep.backbones.conditioning import Conditioning
from diffsweep.backbones.doors import Doors, Embeddings
from diffsweep.mistakes import flag, share

Layer = TypeVar("Layer", bound=nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)


def convolution(dimensions: int, inputs: int, outputs: int, size: int) -> nn.Conv1d | nn.Conv2d | nn.Conv3d:
    """A convolution over 1, 2 or 3 axes that keeps their sizes: `size` positions each way, an odd number."""
    return {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dimensions](inputs, outputs, size, padding=size // 2)


def space_to_depth(x: Tensor, factor: int) -> Tensor:
    """(N, C, *sizes) -> (N, C * factor^axes, *sizes / factor): cubes become channels, as by `F.pixel_unshuffle`."""
    if len(x.shape) == 4:
        # The same numbers, and in the memory layout that convolutions of images like.
        return F.pixel_unshuffle(x, factor)
    n, c, *sizes = x.shape
    axes = range(len(sizes))
    cut = x.reshape(n, c, *(part for size in sizes for part in (size // factor, factor)))
    order = (0, 1, *(3 + 2 * axis for axis in axes), *(2 + 2 * axis for axis in axes))
    return cut.permute(order).reshape(n, -1, *(size // factor for size in sizes))


def depth_to_space(x: Tensor, factor: int) -> Tensor:
    """The inverse of `space_to_depth`, as `F.pixel_shuffle`."""
    if len(x.shape) == 4:
        return F.pixel_shuffle(x, factor)
    n, c, *sizes = x.shape
    count = len(sizes)
    cut = x.reshape(n, c // factor**count, *[factor] * count, *sizes)
    order = (0, 1, *(place for axis in range(count) for place in (2 + count + axis, 2 + axis)))
    return cut.permute(order).reshape(n, c // factor**count, *(size * factor for size in sizes))


def silent(layer: Layer) -> Layer:
    """`layer` with zero weights, so that what it is added to is unchanged at initialisation."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Attention(nn.Module):
    """Residual self-attention over all positions of a feature map (N, C, *sizes)."""

    def __init__(self, channels: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = silent(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """`x` (N, C, *sizes). Returns the same shape."""
        n, c = x.shape[:2]
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).view(n, tokens.shape[1], 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens.shape[1], c)
        return x + self.out(mixed).transpose(1, 2).reshape(x.shape)


class Block(nn.Module):
    """Two convolutions around a residual connection; the second norm is scaled and shifted by the conditioning.

    The block of "Diffusion Models Beat GANs on Image Synthesis" (arXiv 2105.05233), attention included where asked for.
    """

    def __init__(
        self,
        dimensions: int,
        inputs: int,
        outputs: int,
        condition: int,
        groups: int,
        dropout: float,
        attention: Attention | None,
        cross: CrossAttention | None = None,
    ) -> None:
        super().__init__()
        self.ones = [1] * dimensions
        self.norm_in = nn.GroupNorm(groups, inputs)
        self.conv_in = convolution(dimensions, inputs, outputs, 3)
        self.film = nn.Linear(condition, 2 * outputs)
        self.norm_out = nn.GroupNorm(groups, outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = silent(convolution(dimensions, outputs, outputs, 3))
        self.skip = convolution(dimensions, inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.attention = attention if attention is not None else nn.Identity()
        self.norm_cross = nn.GroupNorm(groups, outputs) if cross is not None else None
        self.cross = cross

    def forward(self, x: Tensor, condition: Tensor, embeddings: Embeddings | None = None) -> Tensor:
        """`x` (N, inputs, *sizes), `condition` (N, condition). Returns (N, outputs, *sizes)."""
        scale, shift = self.film(condition).view(len(x), -1, *self.ones).chunk(2, dim=1)
        h = self.conv_in(F.silu(self.norm_in(x)))
        h = F.silu(torch.addcmul(shift, self.norm_out(h), 1 + scale))
        h = self.attention(self.skip(x) + self.conv_out(self.dropout(h)))
        if self.cross is None or self.norm_cross is None:
            return h
        positions = self.norm_cross(h).flatten(2).transpose(1, 2)
        return h + self.cross(positions, embeddings).transpose(1, 2).reshape(h.shape)


class Down(nn.Module):
    """(N, C, *sizes) -> (N, C', *ceil(sizes / 2)); an odd size is padded by repeating its last row."""

    def __init__(self, dimensions: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mix = convolution(dimensions, 2**dimensions * inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (N, C, *sizes)."""
        odd = [size % 2 for size in x.shape[2:]]
        if any(odd):
            x = F.pad(x, [side for one in reversed(odd) for side in (0, one)], mode="replicate")
        return self.mix(space_to_depth(x, 2))


class Up(nn.Module):
    """The way back: (N, C, *ceil(sizes / 2)) -> (N, C', *sizes), cropped to the sizes of the map it joins."""

    def __init__(self, dimensions: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mix = convolution(dimensions, inputs, 2**dimensions * outputs, 1)

    def forward(self, x: Tensor, sizes: torch.Size) -> Tensor:
        """`x` (N, C, ...), `sizes` those to return."""
        large = depth_to_space(self.mix(x), 2)
        for axis, size in enumerate(sizes, 2):
            large = large.narrow(axis, 0, size)
        return large


class UNet(nn.Module):
    """The backbone for all but points: (x, logsnr, embeddings) -> a tensor like the data, zero at initialisation.

    Args:
        shape: (channels, *sizes) of the data: one to three sizes, as (channels, time) of sounds or (channels, height,
            width) of images, are the dimensions of its convolutions; any size that `patch` divides, odd ones included.
        width: channels at the finest level, a multiple of `groups`.
        multipliers: channels of each level as multiples of `width`; each level after the first has half the size.
        blocks: residual blocks per level, on the way down and again on the way up.
        attention: levels whose blocks end with self-attention: 0 is the finest, -1 the coarsest. Levels, not sizes, so
            that the same choice suits every dataset of a sweep.
        patch: the example is cut into squares, or cubes, of so many positions a side that become channels (1: not at
            all).
        heads: attention heads.
        groups: groups of each group norm.
        dropout: share of activations dropped in each block while training, in [0, 1).
        cross_attention: whether the levels of `attention` attend to tokens too, as those of a text.
        inputs: examples stacked along the channels of x, as with an earlier estimate for self-conditioning.
        outputs: examples stacked along the channels of the result, as with a learned variance.

    Raises:
        ValueError: if the data are points or a choice does not fit, naming the choice.

    Source: "U-Net" (arXiv 1505.04597), with the blocks of "Diffusion Models Beat GANs" (2105.05233).
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 32,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 1,
        attention: Sequence[int] = (-1,),
        patch: int = 1,
        heads: int = 4,
        groups: int = 8,
        dropout: float = 0.0,
        cross_attention: bool = False,
        inputs: int = 1,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        data_channels, *sizes = check.spatial(shape)
        dimensions = len(sizes)
        check.integers(1, width=width, blocks=blocks, patch=patch, heads=heads, groups=groups)
        check.integers(1, inputs=inputs, outputs=outputs)
        share("dropout", dropout, one=False)
        flag("cross_attention", cross_attention)
        check.levels(sizes, width, multipliers, attention, patch, heads, groups)

        levels = range(len(multipliers))
        attended = {level % len(multipliers) for level in attention}
        channels = [width * multiplier for multiplier in multipliers]
        vector = 4 * width
        self.shape = (inputs * data_channels, *sizes)
        self.inputs, self.outputs = inputs, outputs
        self.doors = Doors(vector=vector, tokens=vector if cross_attention else None, map=width, patch=patch)
        pixel = data_channels * patch**dimensions

        def block(wide: int, level: int) -> Block:
            mixer = Attention(channels[level], heads, groups) if level in attended else None
            cross = CrossAttention(channels[level], vector, heads) if mixer is not None and cross_attention else None
            return Block(dimensions, wide, channels[level], vector, groups, dropout, mixer, cross)

        self.patch = patch
        self.conditioning = Conditioning(2 * width, vector)
        self.enter = convolution(dimensions, inputs * pixel, width, 3)
        self.downs = nn.ModuleList(Down(dimensions, fine, coarse) for fine, coarse in pairwise(channels))
        self.encoder = nn.ModuleList(nn.ModuleList(block(channels[i], i) for _ in range(blocks)) for i in levels)
        self.middle = block(channels[-1], len(channels) - 1)
        self.decoder = nn.ModuleList(nn.ModuleList(block(2 * channels[i], i) for _ in range(blocks)) for i in levels)
        self.ups = nn.ModuleList(Up(dimensions, coarse, fine) for fine, coarse in pairwise(channels))
        self.leave = nn.Sequential(
            nn.GroupNorm(groups, width), nn.SiLU(), silent(convolution(dimensions, width, outputs * pixel, 3))
        )

    def forward(
        self,
        x: Tensor,
        logsnr: Tensor,
        embeddings: Embeddings | None = None,
        residuals: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """`x` (N, inputs * channels, *sizes) of about unit variance, `logsnr` (N,) with any value.

        `embeddings` come by the doors; `residuals` are added to `features`. Returns (N, outputs * channels, *sizes).
        """
        vector, features = self._encoded(x, logsnr, embeddings)
        if residuals is not None:
            features = [one + residual for one, residual in zip(features, residuals, strict=True)]
        *skips, h = features
        for level in reversed(range(len(self.decoder))):
            for block in self.decoder[level]:  # type: ignore[attr-defined]
                h = block(torch.cat([h, skips.pop()], dim=1), vector, embeddings)
            if level:
                h = self.ups[level - 1](h, skips[-1].shape[2:])
        return depth_to_space(self.leave(h), self.patch)

    def features(self, x: Tensor, logsnr: Tensor, embeddings: Embeddings | None = None) -> list[Tensor]:
        """See `Controllable.features`: what each block of the encoder gives, and then the one in the middle."""
        return self._encoded(x, logsnr, embeddings)[1]

    def encoder_copy(self) -> nn.Module:
        """See `Controllable.encoder_copy`."""
        copied = copy.deepcopy(self)
        del copied.decoder, copied.ups, copied.leave
        return copied

    def silent_layers(self) -> nn.ModuleList:
        """See `Controllable.silent_layers`."""
        blocks = [*(block for level in self.encoder for block in level), self.middle]  # type: ignore[attr-defined]
        channels = [block.conv_out.out_channels for block in blocks]  # type: ignore[union-attr]
        return nn.ModuleList(silent(convolution(len(self.shape) - 1, count, count, 1)) for count in channels)

    def _encoded(self, x: Tensor, logsnr: Tensor, embeddings: Embeddings | None) -> tuple[Tensor, list[Tensor]]:
        check.built_for(x, self.shape, "unet", "examples")
        vector = F.silu(self.conditioning(logsnr, embeddings))
        h = self.enter(space_to_depth(x, self.patch))
        if embeddings is not None and embeddings.map is not None:
            h = h + embeddings.map
        features: list[Tensor] = []
        for level, blocks in enumerate(self.encoder):
            if level:
                h = self.downs[level - 1](h)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, vector, embeddings)
                features.append(h)
        return vector, [*features, self.middle(h, vector, embeddings)]
