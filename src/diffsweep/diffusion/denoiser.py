"""A denoiser is the conditional mean E[x0 | x_t]; here from a network, by its target's two coefficients."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from diffsweep.diffusion.level import Level
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.target import Target


class Denoise(Protocol):
    """What a sampler needs: ``denoise(x, level, condition) -> x0``, all of x's shape (N, ...)."""

    def __call__(self, x: Tensor, level: Level, condition: Tensor | None = None) -> Tensor: ...


class Denoiser(nn.Module):
    """E[x0 | x_t] = skip x + out F(x / r, logsnr), with r the standard deviation of x at its level.

    Scaling the input to unit variance is EDM's c_in (arXiv 2206.00364, table 1), for any path.

    Args:
        backbone: Network (x of unit variance, logsnr of shape (N,), condition) -> tensor of x's shape.
        schedule: The schedule it is trained on; samplers may use another.
        target: What the network's output means.
        sigma_data: Root mean square of the data.

    Raises:
        ValueError: if the target cannot give x0 somewhere on the schedule, as eps where alpha = 0.
    """

    def __init__(self, backbone: nn.Module, schedule: Schedule, target: Target, sigma_data: float = 0.5) -> None:
        super().__init__()
        if not 0 < sigma_data < math.inf:
            raise ValueError(f"sigma_data={sigma_data} must be above 0: it is the root mean square of the data")
        if not all(math.isfinite(value) for value in target.skip_out(schedule.level(1.0))):
            raise ValueError(
                f"a network that predicts {type(target).__name__.lower()} cannot give x0 where alpha = 0, and "
                f"schedule={type(schedule).__name__.lower()} starts there: "
                "choose diffuser=v, x0, edm or flow, or schedule=cosine, linear or ve"
            )
        self.backbone = backbone
        self.schedule = schedule
        self.target = target
        self.sigma_data = sigma_data

    def forward(self, x: Tensor, level: Level, condition: Tensor | None = None) -> Tensor:
        """The denoised x, of its shape and type."""
        skip, out = self.target.skip_out(level.like(x))
        return skip * x + out * self.predict(x, level, condition)

    def predict(self, x: Tensor, level: Level, condition: Tensor | None = None) -> Tensor:
        """The network's own output F, of x's shape and type."""
        logsnr = level.logsnr
        if not isinstance(logsnr, Tensor):
            logsnr = torch.full((len(x),), logsnr, device=x.device)
        here = level.like(x)
        scale = (here.alpha**2 * self.sigma_data**2 + here.sigma**2) ** -0.5
        return self.backbone(x * scale, logsnr, condition).to(x.dtype)
