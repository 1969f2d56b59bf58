"""A user's own objective."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffsweep.diffusion import Denoiser
from diffsweep.diffusion.objective import Objective
from diffsweep.diffusion.target import EDM


class Absolute(Objective):
    """The absolute error of x0."""

    def build(self, backbone: Any, schedule: Any, sigma_data: float = 0.5) -> Denoiser:
        return Denoiser(backbone, schedule, EDM(sigma_data), sigma_data)

    def draw(self, shape: Any, generator: Any = None) -> tuple[Tensor, Tensor]:
        return torch.rand(shape[0], generator=generator), torch.randn(shape, generator=generator)

    def regress(self, denoiser: Any, x0: Tensor, u: Tensor, eps: Tensor, condition: Any = None) -> Tensor:
        level = denoiser.schedule.level(1 - u)
        here = level.like(x0)
        return (denoiser(here.alpha * x0 + here.sigma * eps, level, condition) - x0).abs().mean(1)
