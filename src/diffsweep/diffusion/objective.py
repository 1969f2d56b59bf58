"""What a training needs of an objective: the model it trains, what is random in a batch, and the loss of the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

from torch import Tensor, nn

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoiser
from diffsweep.diffusion.generators import Generator
from diffsweep.diffusion.schedules.base import Schedule


class Objective(nn.Module, ABC):
    """How a model is trained; a module, for a part of it may learn (parameters) or remember (buffers).

    All randomness is drawn first, so that a training step is a function of (weights, buffers, draw).

    Attributes:
        network_inputs: states of x's shape that the network is shown side by side, as its ``inputs``.
        network_outputs: tensors of x's shape that it answers with, as its ``outputs``.
    """

    network_inputs = 1
    network_outputs = 1

    @abstractmethod
    def build(self, backbone: nn.Module, schedule: Schedule, sigma_data: float = 0.5) -> Denoiser:
        """The denoiser that is trained, of the arguments of ``Denoiser``.

        Raises:
            ValueError: if backbone and schedule do not suit the objective.
        """

    @abstractmethod
    def draw(self, shape: tuple[int, ...], generator: Generator = None) -> tuple[Tensor, Tensor]:
        """What is random in a batch of this shape (N, ...): uniforms (N,) for the times, and noise of the shape.

        They are drawn by the functions of `diffusion.generators`, for a batch may be drawn on the device.
        """

    @abstractmethod
    def regress(
        self, denoiser: Denoiser, x0: Tensor, u: Tensor, eps: Tensor, condition: Condition | None = None
    ) -> Tensor:
        """The weighted loss of each example, (N,), for x0 (N, ...) and what was drawn for it, on one device."""

    @final
    def forward(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        condition: Condition | None = None,
        *,
        generator: Generator = None,
    ) -> Tensor:
        """The weighted loss of each example, (N,), for data x0 of shape (N, ...), with fresh randomness."""
        u, eps = self.draw(x0.shape, generator)
        return self.regress(denoiser, x0, u.to(x0.device), eps.to(x0), condition)
