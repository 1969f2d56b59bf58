"""A U-Net for images in which no layer changes the magnitude of what it is given: activations, weights and updates.

Every weight vector has unit length whenever it is used, and is set back to it at every training step, so that neither
activations nor effective learning rates drift, without a norm layer or weight decay.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffsweep.backbones import check
from diffsweep.backbones.conditioning import LIMIT
from diffsweep.backbones.doors import Doors, Embeddings
from diffsweep.mistakes import BadValue, share

# Shares of a residual branch, of attention, of a condition and of a skip in what they are joined with (table 6).
RESIDUAL, ATTENTION, LABEL, SKIP = 0.3, 0.3, 0.5, 0.5
# Activations beyond it are cut, as half precision overflows (section B.6 of the paper).
LARGEST = 256.0


def unit(x: Tensor, dims: int | tuple[int, ...]) -> Tensor:
    """`x` divided by its root mean square over `dims`, in at least float32 (equations 30 and 66)."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide / (wide.square().mean(dims, keepdim=True).sqrt() + 1e-4)).to(x.dtype)


def silu(x: Tensor) -> Tensor:
    """SiLU divided by the root mean square that it has for normal inputs (equation 81)."""
    return F.silu(x) / 0.596


def mix(a: Tensor, b: Tensor, part: float) -> Tensor:
    """a (1 - part) + b part, of the magnitude of uncorrelated a and b (equation 88)."""
    return torch.lerp(a, b, part) / math.hypot(1 - part, part)


def join(a: Tensor, b: Tensor, part: float) -> Tensor:
    """a and b side by side, b contributing its `part` however many channels it has (equation 103)."""
    scale = math.sqrt(a.shape[1] + b.shape[1]) / math.hypot(1 - part, part)
    return torch.cat([a * ((1 - part) * scale / a.shape[1] ** 0.5), b * (part * scale / b.shape[1] ** 0.5)], dim=1)


class Convolution(nn.Module):
    """A convolution, or with `kernel` 0 a linear layer, of weight vectors of unit length and no bias (section 2.3)."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *[kernel] * 2 * (kernel > 0)))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """`x` (N, inputs, H, W), or (N, inputs) for a linear layer; `gain` multiplies the result."""
        weight = self.unit_weight() * (gain / self.weight[0].numel() ** 0.5)
        if weight.ndim == 2:
            return F.linear(x, weight)
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)

    def unit_weight(self) -> Tensor:
        """The weight with rows of unit root mean square."""
        return unit(self.weight, tuple(range(1, self.weight.ndim)))


class Conditioning(nn.Module):
    """(logsnr, embeddings) -> one vector of `width` numbers per example, of unit magnitude (section B.2)."""

    frequencies: Tensor
    phases: Tensor

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        # Fixed for good: two trainings with different seeds differ in what they learn, not in what they can learn.
        fixed = torch.Generator().manual_seed(0)
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(features, generator=fixed, device="cpu"))
        self.register_buffer("phases", 2 * math.pi * torch.rand(features, generator=fixed, device="cpu"))
        self.level = Convolution(features, width, 0)

    def forward(self, logsnr: Tensor, embeddings: Embeddings | None = None) -> Tensor:
        """`logsnr` (N,). Returns (N, width)."""
        log_noise = -logsnr.to(torch.promote_types(logsnr.dtype, torch.float32)).clamp(-LIMIT, LIMIT) / 2
        angles = log_noise[:, None] / 4 * self.frequencies.to(log_noise) + self.phases.to(log_noise)
        vector = self.level((math.sqrt(2) * angles.cos()).to(self.level.weight.dtype))
        if embeddings is None or embeddings.vector is None:
            return silu(vector)
        return silu(mix(vector, unit(embeddings.vector, 1), LABEL))


class Block(nn.Module):
    """Two convolutions on a residual branch that the conditioning scales, then attention where asked for (figure 21).

    A block of the way down narrows or widens first and keeps its main branch at unit magnitude; one of the way up takes
    the skip in by its first convolution.
    """

    def __init__(
        self, inputs: int, outputs: int, condition: int, head: int | None, dropout: float, *, down: bool
    ) -> None:
        super().__init__()
        self.down = down
        self.heads = max(1, outputs // head) if head else 0
        if self.heads and outputs % self.heads:
            raise BadValue("head", head, f"does not divide the {outputs} channels that attend: choose one that does")
        self.skip = Convolution(inputs, outputs, 1) if inputs != outputs else None
        self.inner = Convolution(outputs if down else inputs, outputs, 3)
        self.scale = Convolution(condition, outputs, 0)
        self.scale_gain = nn.Parameter(torch.zeros(()))
        self.dropout = nn.Dropout(dropout)
        self.outer = Convolution(outputs, outputs, 3)
        self.qkv = Convolution(outputs, 3 * outputs, 1) if head else None
        self.out = Convolution(outputs, outputs, 1) if head else None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """`x` (N, inputs, H, W), `condition` (N, condition). Returns (N, outputs, H, W)."""
        if self.down:
            x = unit(x if self.skip is None else self.skip(x), 1)
        h = self.inner(silu(x))
        h = silu(h * (self.scale(condition, self.scale_gain) + 1)[:, :, None, None])
        h = self.outer(self.dropout(h))
        if not self.down and self.skip is not None:
            x = self.skip(x)
        x = mix(x, h, RESIDUAL)
        if self.qkv is not None and self.out is not None:
            n, c, height, width = x.shape
            qkv = self.qkv(x).view(n, self.heads, c // self.heads, 3, height * width)
            q, k, v = unit(qkv, 2).permute(3, 0, 1, 4, 2)
            mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(x.shape)
            x = mix(x, self.out(mixed), ATTENTION)
        return x.clamp(-LARGEST, LARGEST)


def halved(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, ceil(H/2), ceil(W/2)), means of 2 x 2; an odd side repeats its last row or column."""
    odd_h, odd_w = x.shape[2] % 2, x.shape[3] % 2
    if odd_h or odd_w:
        x = F.pad(x, (0, odd_w, 0, odd_h), mode="replicate")
    return F.avg_pool2d(x, 2)


def doubled(x: Tensor, size: torch.Size) -> Tensor:
    """(N, C, ceil(H/2), ceil(W/2)) -> (N, C, H, W), each number four times; `size` ends with the H and W to return."""
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, : size[-2], : size[-1]]


class EDM2(nn.Module):
    """The magnitude-preserving U-Net: (x, logsnr, embeddings) -> a tensor like the data, zero at initialisation.

    Args:
        shape: (channels, height, width) of the data; any size, odd sizes included.
        width: channels at the finest level.
        multipliers: channels of each level as multiples of `width`; each level after the first has half the size.
        blocks: residual blocks per level on the way down, and one more on the way up.
        attention: levels whose blocks end with self-attention: 0 is the finest, -1 the coarsest.
        head: channels of an attention head; a level with fewer has one head.
        dropout: share of activations dropped in each block while training, in [0, 1).
        inputs: images stacked along the channels of x, as with an earlier estimate for self-conditioning.
        outputs: images stacked along the channels of the result, as with a learned variance.

    Raises:
        ValueError: if the data are not images or a choice does not fit, naming the choice.

    Source: "Analyzing and Improving the Training Dynamics of Diffusion Models" (arXiv 2312.02696), config G.
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 32,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 1,
        attention: Sequence[int] = (-1,),
        head: int = 64,
        dropout: float = 0.0,
        inputs: int = 1,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        image = check.image(shape, "edm2")
        check.integers(1, width=width, blocks=blocks, head=head, inputs=inputs, outputs=outputs)
        share("dropout", dropout, one=False)
        check.levels(image[1:], width, multipliers, attention, patch=1, heads=1, groups=1)
        self.shape = (inputs * image[0], *image[1:])
        self.inputs, self.outputs = inputs, outputs
        channels = [width * multiplier for multiplier in multipliers]
        attended = {level % len(multipliers) for level in attention}
        vector = max(channels)
        self.doors = Doors(vector=vector, map=channels[0])

        def block(before: int, after: int, *, down: bool, attends: bool = False) -> Block:
            return Block(before, after, vector, head if attends else None, dropout, down=down)

        self.conditioning = Conditioning(channels[0], vector)
        # One channel more, of ones, stands in for the bias that no layer has.
        self.enter = Convolution(inputs * image[0] + 1, channels[0], 3)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        wide, skips = channels[0], [channels[0]]
        for level, after in enumerate(channels):
            # After a halving comes a block that keeps the channels.
            widths = [wide, *([wide] if level else []), *[after] * blocks]
            here = [
                block(a, b, down=True, attends=level in attended and not (level and i == 0))
                for i, (a, b) in enumerate(pairwise(widths))
            ]
            self.encoder.append(nn.ModuleList(here))
            skips += widths[1:]
            wide = after
        self.middle = nn.ModuleList(block(wide, wide, down=False, attends=i == 0) for i in range(2))
        for level in reversed(range(len(channels))):
            here = [] if level == len(channels) - 1 else [block(wide, wide, down=False)]
            for _ in range(blocks + 1):
                here.append(block(wide + skips.pop(), channels[level], down=False, attends=level in attended))
                wide = channels[level]
            self.decoder.append(nn.ModuleList(here))
        self.leave = Convolution(wide, outputs * image[0], 3)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, logsnr: Tensor, embeddings: Embeddings | None = None) -> Tensor:
        """`x` (N, inputs * C, H, W) of about unit variance, `logsnr` (N,) with any value.

        `embeddings` come by the doors. Returns (N, outputs * C, H, W). While training, sets weights to unit length.
        """
        check.built_for(x, self.shape, "edm2", "images")
        if self.training and torch.is_grad_enabled():
            self.normalize()
        vector = self.conditioning(logsnr, embeddings)
        h = self.enter(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))
        if embeddings is not None and embeddings.map is not None:
            h = mix(h, unit(embeddings.map, 1), LABEL)
        skips = [h]
        for level, blocks in enumerate(self.encoder):
            h = halved(h) if level else h
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, vector)
                skips.append(h)
        for block in self.middle:
            h = block(h, vector)
        for level, blocks in enumerate(self.decoder):
            for i, block in enumerate(blocks):  # type: ignore[arg-type]
                if level and i == 0:
                    h = block(doubled(h, skips[-1].shape), vector)
                else:
                    h = block(join(h, skips.pop(), SKIP), vector)
        return self.leave(h, self.gain)

    @torch.no_grad()
    def normalize(self) -> None:
        """Set every weight vector to unit length: forced weight normalisation (section 2.4, equation 66)."""
        for module in self.modules():
            if isinstance(module, Convolution):
                module.weight.copy_(module.unit_weight())
