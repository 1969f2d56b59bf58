"""A compact U-Net for images: residual blocks at halving sizes, each told the log-SNR by a scale and a shift (FiLM).

Sizes change by space-to-depth and back with a 1x1 convolution, which loses nothing and costs a ninth of a 3x3: `patch`
does the same to the image itself, the cheapest way to a fast network on a CPU.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffsweep.backbones import check
from diffsweep.backbones.conditioning import Conditioning
from diffsweep.mistakes import BadValue, share, whole

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def silent(layer: Layer) -> Layer:
    """`layer` with zero weights, so that what it is added to is unchanged at initialisation."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Attention(nn.Module):
    """Residual self-attention over all positions of a feature map (N, C, H, W)."""

    def __init__(self, channels: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = silent(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """`x` (N, C, H, W). Returns the same shape."""
        n, c, h, w = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).view(n, h * w, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, h * w, c)
        return x + self.out(mixed).transpose(1, 2).reshape(n, c, h, w)


class Block(nn.Module):
    """Two convolutions around a residual connection; the second norm is scaled and shifted by the conditioning.

    The block of "Diffusion Models Beat GANs on Image Synthesis" (arXiv 2105.05233), attention included where asked for.
    """

    def __init__(
        self, inputs: int, outputs: int, condition: int, groups: int, dropout: float, attention: Attention | None
    ) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(groups, inputs)
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.film = nn.Linear(condition, 2 * outputs)
        self.norm_out = nn.GroupNorm(groups, outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = silent(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.attention = attention if attention is not None else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """`x` (N, inputs, H, W), `condition` (N, condition). Returns (N, outputs, H, W)."""
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
        h = self.conv_in(F.silu(self.norm_in(x)))
        h = F.silu(torch.addcmul(shift, self.norm_out(h), 1 + scale))
        return self.attention(self.skip(x) + self.conv_out(self.dropout(h)))


class Down(nn.Module):
    """(N, C, H, W) -> (N, C', ceil(H/2), ceil(W/2)); an odd side is padded by repeating its last row or column."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(4 * inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (N, C, H, W)."""
        odd_h, odd_w = x.shape[2] % 2, x.shape[3] % 2
        if odd_h or odd_w:
            x = F.pad(x, (0, odd_w, 0, odd_h), mode="replicate")
        return self.mix(F.pixel_unshuffle(x, 2))


class Up(nn.Module):
    """The way back: (N, C, ceil(H/2), ceil(W/2)) -> (N, C', H, W), cropped to the size of the map it joins."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(inputs, 4 * outputs, 1)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        """`x` (N, C, h, w); the last two numbers of `size` are the H and W to return."""
        return F.pixel_shuffle(self.mix(x), 2)[:, :, : size[-2], : size[-1]]


class UNet(nn.Module):
    """The image backbone: (x, logsnr, condition) -> a tensor like the data, zero at initialisation.

    Args:
        shape: (channels, height, width) of the data; any size that `patch` divides, odd sizes included.
        width: channels at the finest level, a multiple of `groups`.
        multipliers: channels of each level as multiples of `width`; each level after the first has half the size.
        blocks: residual blocks per level, on the way down and again on the way up.
        attention: levels whose blocks end with self-attention: 0 is the finest, -1 the coarsest. Levels, not sizes, so
            that the same choice suits every dataset of a sweep.
        patch: the image is cut into patch x patch squares that become channels (1: not at all).
        heads: attention heads.
        groups: groups of each group norm.
        dropout: share of activations dropped in each block while training, in [0, 1).
        classes: number of labels; 0 is an unconditional network, which refuses labels.
        inputs: images stacked along the channels of x, as with an earlier estimate for self-conditioning.
        outputs: images stacked along the channels of the result, as with a learned variance.

    Raises:
        ValueError: if the data are not images or a choice does not fit, naming the choice.

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
        classes: int = 0,
        inputs: int = 1,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        image = check.image(shape)
        check.integers(1, width=width, blocks=blocks, patch=patch, heads=heads, groups=groups)
        check.integers(1, inputs=inputs, outputs=outputs)
        check.integers(0, classes=classes)
        share("dropout", dropout, one=False)
        check_levels(image, width, multipliers, attention, patch, heads, groups)

        levels = range(len(multipliers))
        attended = {level % len(multipliers) for level in attention}
        channels = [width * multiplier for multiplier in multipliers]
        vector = 4 * width
        self.shape = (inputs * image[0], *image[1:])
        self.inputs, self.outputs = inputs, outputs
        pixel = image[0] * patch**2

        def block(wide: int, level: int) -> Block:
            mixer = Attention(channels[level], heads, groups) if level in attended else None
            return Block(wide, channels[level], vector, groups, dropout, mixer)

        self.patch = patch
        self.conditioning = Conditioning(2 * width, vector, classes)
        self.enter = nn.Conv2d(inputs * pixel, width, 3, padding=1)
        self.downs = nn.ModuleList(Down(fine, coarse) for fine, coarse in pairwise(channels))
        self.encoder = nn.ModuleList(nn.ModuleList(block(channels[i], i) for _ in range(blocks)) for i in levels)
        self.middle = block(channels[-1], len(channels) - 1)
        self.decoder = nn.ModuleList(nn.ModuleList(block(2 * channels[i], i) for _ in range(blocks)) for i in levels)
        self.ups = nn.ModuleList(Up(coarse, fine) for fine, coarse in pairwise(channels))
        self.leave = nn.Sequential(
            nn.GroupNorm(groups, width), nn.SiLU(), silent(nn.Conv2d(width, outputs * pixel, 3, padding=1))
        )

    def forward(self, x: Tensor, logsnr: Tensor, condition: Tensor | None = None) -> Tensor:
        """`x` (N, inputs * channels, H, W) of about unit variance, `logsnr` (N,) with any value.

        `condition` is int64 (N,) or None. Returns (N, outputs * channels, H, W).
        """
        if x.shape[1:] != self.shape:
            raise ValueError(f"this unet was built for images of shape {self.shape}, got {tuple(x.shape[1:])}")
        vector = F.silu(self.conditioning(logsnr, condition))
        h = self.enter(F.pixel_unshuffle(x, self.patch))
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.encoder):
            if level:
                h = self.downs[level - 1](h)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, vector)
                skips.append(h)
        h = self.middle(h, vector)
        for level in reversed(range(len(self.decoder))):
            for block in self.decoder[level]:  # type: ignore[attr-defined]
                h = block(torch.cat([h, skips.pop()], dim=1), vector)
            if level:
                h = self.ups[level - 1](h, skips[-1].shape)
        return F.pixel_shuffle(self.leave(h), self.patch)


def check_levels(
    shape: tuple[int, int, int],
    width: int,
    multipliers: Sequence[int],
    attention: Sequence[int],
    patch: int,
    heads: int,
    groups: int,
) -> None:
    """Raise ValueError unless the image can be cut and halved as asked and channels divide into groups and heads."""
    _, height, breadth = shape
    if height % patch or breadth % patch:
        raise BadValue("patch", patch, f"does not divide images of {height} x {breadth}: choose one that does")
    if not multipliers:
        raise BadValue("multipliers", [], "is empty: give one number per level, such as [1,2]")
    for i, multiplier in enumerate(multipliers):
        whole(f"multipliers[{i}]", multiplier, 1)
    if width % groups:
        raise BadValue("width", width, f"is not a multiple of groups={groups}")
    side = min(height, breadth) // patch
    if side <= 2 ** (len(multipliers) - 2):
        raise BadValue(
            "multipliers",
            list(multipliers),
            f"halves images of {height} x {breadth} (patch {patch}) "
            f"{len(multipliers) - 1} times, below one pixel: give fewer multipliers",
        )
    for level in attention:
        if isinstance(level, bool) or not isinstance(level, int) or not -len(multipliers) <= level < len(multipliers):
            raise BadValue(
                "attention",
                list(attention),
                f"names level {level!r}, but levels go from 0 to {len(multipliers) - 1} (or -1 for the coarsest)",
            )
        wide = width * multipliers[level]
        if wide % heads:
            raise BadValue("heads", heads, f"does not divide the {wide} channels of level {level}")
