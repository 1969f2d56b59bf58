"""The training objective: draw t, noise x0 to its level, regress the target, weigh the error.

    loss = weight(level) out^2 loss(F(x, level), a x0 + b eps)

with ``x = alpha x0 + sigma eps``; the factor out^2 turns a weight in x0 units into one on the network's output.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffsweep.diffusion.denoiser import Denoiser
from diffsweep.diffusion.loss import Loss
from diffsweep.diffusion.target import Target
from diffsweep.diffusion.times import Times, uniforms
from diffsweep.diffusion.weight import Weight


@dataclass(frozen=True)
class Diffuser:
    """How a model is trained.

    Args:
        target: What the network predicts; build the ``Denoiser`` with the same.
        times: Distribution of training times.
        weight: Weight over levels, in x0 units.
        loss: Elementwise loss between prediction and target.
        stratified: Draw a batch's times one per stratum.

    Example:
        >>> import torch
        >>> from diffsweep.diffusion import Denoiser, Diffuser
        >>> from diffsweep.diffusion.loss import SquaredError
        >>> from diffsweep.diffusion.schedules import Cosine
        >>> from diffsweep.diffusion.target import V
        >>> from diffsweep.diffusion.times import Uniform
        >>> from diffsweep.diffusion.weight import Output
        >>> class Zero(torch.nn.Module):
        ...     def forward(self, x, logsnr, condition=None):
        ...         return x * 0
        >>> diffuser = Diffuser(V(), Uniform(), Output(), SquaredError())
        >>> denoiser = Denoiser(Zero(), Cosine(), diffuser.target)
        >>> diffuser(denoiser, torch.randn(8, 2)).shape
        torch.Size([8])
    """

    target: Target
    times: Times
    weight: Weight
    loss: Loss
    stratified: bool = True

    def __call__(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        condition: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The weighted loss of each example, (N,), for data x0 of shape (N, ...)."""
        u, eps = self.draw(x0.shape, generator)
        return self.regress(denoiser, x0, u.to(x0.device), eps.to(x0), condition)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """What is random in a batch of this shape (N, ...): uniforms (N,) for the times, and unit noise, on the CPU."""
        u = uniforms(shape[0], stratified=self.stratified, generator=generator)
        return u, torch.randn(shape, generator=generator)

    def regress(
        self, denoiser: Denoiser, x0: Tensor, u: Tensor, eps: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """The weighted loss of each example, (N,): a pure function of the weights and its arguments."""
        level = denoiser.schedule.level(self.times(u, denoiser.schedule))
        here = level.like(x0)
        a, b = self.target.coefficients(here)
        prediction = denoiser.predict(here.alpha * x0 + here.sigma * eps, level, condition)
        _, out = self.target.skip_out(level)
        error = self.loss(prediction, a * x0 + b * eps).flatten(1).mean(1)
        return self.weight(level, out) * out**2 * error
