"""How much each level's error counts, always stated as the weight of ``|x0_hat - x0|^2``.

In these units schemes can be compared whatever the network predicts; ``out`` is d x0 / dF of the target, so that
the squared error of the network's own output is the weight ``1 / out^2``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from diffsweep.diffusion.level import Level, Scalar
from diffsweep.diffusion.target import Target
from diffsweep.mistakes import BadValue, above, whole


class Weight(Protocol):
    """A weight over levels."""

    def __call__(self, level: Level, out: Scalar) -> Scalar:
        """The weight of the squared error in x0 at levels of shape (N,), given d x0 / dF there."""
        ...


@runtime_checkable
class Balanced(Protocol):
    """A weight that is learned needs a price for being small."""

    def price(self, level: Level) -> Tensor:
        """What is added to the weighted loss at levels of shape (N,), (N,)."""
        ...


@dataclass(frozen=True)
class Output:
    """1 / out^2: the plain squared error of what the network predicts.

    For eps this is DDPM's simple loss (arXiv 2006.11239, eq. 14), for EDM's target EDM's weight
    (arXiv 2206.00364, table 1), for v the weight snr + 1 (arXiv 2202.00512, eq. 9).
    """

    def __call__(self, level: Level, out: Scalar) -> Scalar:
        return out**-2.0


@dataclass(frozen=True)
class Units:
    """1 / out^2 of a target of choice: the squared error in its units, whatever the network predicts.

    With flow's velocity, for a network that predicts x0, it is the loss of "Back to Basics: Let Denoising Generative
    Models Denoise" (arXiv 2511.13720, table 1).

    Args:
        target: In whose units.
    """

    target: Target

    def __call__(self, level: Level, out: Scalar) -> Scalar:
        _, own = self.target.skip_out(level)
        return own**-2.0


@dataclass(frozen=True)
class Uniform:
    """1: the plain squared error of x0."""

    def __call__(self, level: Level, out: Scalar) -> Scalar:
        return out**0.0


@dataclass(frozen=True)
class SNR:
    """alpha^2 / sigma^2: the squared error of eps, whatever the network predicts."""

    def __call__(self, level: Level, out: Scalar) -> Scalar:
        return (level.alpha / level.sigma) ** 2


@dataclass(frozen=True)
class MinSNR:
    """min(snr, gamma) (Efficient Diffusion Training via Min-SNR Weighting, arXiv 2303.09556, section 3.3).

    Args:
        gamma: Largest weight, > 0.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise BadValue("gamma", self.gamma, "must be above 0")

    def __call__(self, level: Level, out: Scalar) -> Scalar:
        return ((level.alpha / level.sigma) ** 2).clamp(max=self.gamma)


@dataclass(frozen=True)
class SoftMinSNR:
    """snr gamma / (snr + gamma), a smooth min(snr, gamma) (Hourglass Diffusion Transformers, arXiv 2401.11605).

    Args:
        gamma: Largest weight, > 0; with gamma = 1 / sigma_data^2 it is 1 / (noise^2 + sigma_data^2).
    """

    gamma: float = 4.0

    def __post_init__(self) -> None:
        above("gamma", self.gamma)

    def __call__(self, level: Level, out: Scalar) -> Scalar:
        return 1 / ((level.sigma / level.alpha) ** 2 + 1 / self.gamma)


@dataclass(frozen=True)
class EDM:
    """(noise^2 + sigma_data^2) / (noise sigma_data)^2, noise = sigma / alpha (EDM, arXiv 2206.00364, table 1).

    Args:
        sigma_data: Root mean square of the data, > 0.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        above("sigma_data", self.sigma_data)

    def __call__(self, level: Level, out: Scalar) -> Scalar:
        return (level.alpha / level.sigma) ** 2 + self.sigma_data**-2


@dataclass(frozen=True)
class Sigmoid:
    """snr sigmoid(bias - logsnr): eps's squared error, faded out at low noise (arXiv 2303.00848; 2410.19324).

    It is SoftMinSNR with gamma = e^bias. The papers state it per unit of log-SNR: ``diffuser/times=logsnr`` draws so.

    Args:
        bias: log-SNR at which the weight has fallen to half; finer images want a lower one.
    """

    bias: float = 0.0

    def __call__(self, level: Level, out: Scalar) -> Scalar:
        return 1 / ((level.sigma / level.alpha) ** 2 + math.exp(-self.bias))


class Learned(nn.Module):
    """base / e^u, at the price of u: the uncertainty weighting of EDM2 (arXiv 2312.02696; after arXiv 1705.07115).

    The minimum of ``loss / e^u + u`` is at ``u = log E[loss]``, so that every level comes to count alike. u is linear
    in fixed random Fourier features of log noise / 4, and 0 at the start.

    Args:
        base: The weight that it starts from.
        features: Number of Fourier features, >= 1.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, base: Weight, features: int = 128) -> None:
        super().__init__()
        whole("features", features, 1)
        self.base = base
        # Fixed for good: two trainings with different seeds differ in what they learn, not in what they can learn.
        fixed = torch.Generator().manual_seed(0)
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(features, generator=fixed))
        self.register_buffer("phases", 2 * math.pi * torch.rand(features, generator=fixed))
        self.mixture = nn.Parameter(torch.zeros(features))

    def forward(self, level: Level, out: Scalar) -> Scalar:
        """The weight at levels of shape (N,)."""
        return self.base(level, out) * (-self.price(level)).exp()

    def price(self, level: Level) -> Tensor:
        """u, (N,)."""
        log_noise = -level.logsnr.to(self.phases).clamp(-40, 40) / 2
        return math.sqrt(2) * torch.cos(log_noise[:, None] / 4 * self.frequencies + self.phases) @ self.mixture
