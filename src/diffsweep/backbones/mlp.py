"""A residual multilayer perceptron for points: h + W2 silu(FiLM(norm(W1 h)))."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffsweep.backbones import check
from diffsweep.backbones.conditioning import Conditioning
from diffsweep.backbones.doors import Doors, Embeddings


class Block(nn.Module):
    """A residual layer, scaled and shifted by the conditioning; the identity at initialisation."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.film = nn.Linear(condition, 2 * width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """`x` (N, width), `condition` (N, condition). Returns (N, width)."""
        scale, shift = self.film(condition).chunk(2, dim=1)
        return x + self.outer(F.silu(self.inner(torch.addcmul(shift, self.norm(x), 1 + scale))))


class MLP(nn.Module):
    """The backbone for points: (x, logsnr, embeddings) -> a tensor like the data, zero at initialisation.

    Args:
        shape: (dimensions,) of the data.
        width: hidden units.
        depth: residual layers.
        octaves: sines and cosines of pi x / 2, pi x, 2 pi x ... that the network sees beside x, without which it is
            slow to learn fine structure; 0 for none, where the network itself should be smooth.
        inputs: points side by side in x, as with an earlier estimate for self-conditioning.
        outputs: points side by side in the result, as with a learned variance.

    Raises:
        ValueError: if the data are images or a choice does not fit, naming the choice.

    Source: "Deep Residual Learning" (arXiv 1512.03385), conditioned as in "FiLM" (1709.07871),
    "Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains" (2006.10739).
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 128,
        depth: int = 4,
        octaves: int = 3,
        inputs: int = 1,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        dimensions = check.points(shape)
        check.integers(2, width=width)
        check.integers(1, depth=depth, inputs=inputs, outputs=outputs)
        check.integers(0, octaves=octaves)
        self.shape = (inputs * dimensions,)
        self.inputs, self.outputs = inputs, outputs
        self.doors = Doors(vector=width)
        self.conditioning = Conditioning(width, width)
        self.frequencies = [math.pi / 2 * 2**i for i in range(octaves)]
        self.enter = nn.Linear(inputs * dimensions * (1 + 2 * octaves), width)
        self.blocks = nn.ModuleList(Block(width, width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, outputs * dimensions)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, logsnr: Tensor, embeddings: Embeddings | None = None) -> Tensor:
        """`x` (N, inputs * dimensions) of about unit variance, `logsnr` (N,) with any value.

        `embeddings` come by the doors. Returns (N, outputs * dimensions).
        """
        check.built_for(x, self.shape, "mlp", "points")
        vector = F.silu(self.conditioning(logsnr, embeddings))
        waves = [wave(frequency * x) for frequency in self.frequencies for wave in (torch.sin, torch.cos)]
        h = self.enter(torch.cat([x, *waves], 1))
        for block in self.blocks:
            h = block(h, vector)
        return self.leave(self.norm(h))
