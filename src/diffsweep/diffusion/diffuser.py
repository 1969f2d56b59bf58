"""The training objective: draw t, noise x0 to its level, regress the target, weigh the error.

    loss = weight(level) out^2 distance(F(x, level), a x0 + b eps)

with ``x = alpha x0 + sigma eps``; the factor out^2 turns a weight in x0 units into one on the network's output.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoiser, Learner, check_copies
from diffsweep.diffusion.generators import Generator, randn, uniforms
from diffsweep.diffusion.loss import Loss
from diffsweep.diffusion.objective import Objective
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.target import Target
from diffsweep.diffusion.times import Adaptive, Times
from diffsweep.diffusion.weight import Balanced, Weight
from diffsweep.mistakes import BadValue


class Diffuser(Objective):
    """Regression of a target over a distribution of times.

    Args:
        target: What the network predicts.
        times: Distribution of training times.
        weight: Weight over levels, in x0 units.
        loss: Loss between prediction and target.
        stratified: Draw a batch's times one per stratum.
        offset: Standard deviation of noise that is one number per channel, added to eps while training, >= 0; 0.1 lets
            a model leave medium brightness (Diffusion with Offset Noise, N. Guttenberg, 2023).

    Raises:
        ValueError: for an offset below 0.

    Example:
        >>> import torch
        >>> from diffsweep.diffusion import Diffuser
        >>> from diffsweep.diffusion.loss import SquaredError
        >>> from diffsweep.diffusion.schedules import Cosine
        >>> from diffsweep.diffusion.target import V
        >>> from diffsweep.diffusion.times import Uniform
        >>> from diffsweep.diffusion.weight import Output
        >>> class Zero(torch.nn.Module):
        ...     def forward(self, x, logsnr, condition=None):
        ...         return x * 0
        >>> diffuser = Diffuser(V(), Uniform(), Output(), SquaredError())
        >>> denoiser = diffuser.build(Zero(), Cosine())
        >>> diffuser(denoiser, torch.randn(8, 2)).shape
        torch.Size([8])
    """

    def __init__(
        self,
        target: Target,
        times: Times,
        weight: Weight,
        loss: Loss,
        stratified: bool = True,
        offset: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= offset < math.inf:
            raise BadValue("offset", offset, "must be 0 (plain noise) or more")
        self.target = target
        self.times = times
        self.weight = weight
        self.loss = loss
        self.stratified = stratified
        self.offset = offset

    def build(self, backbone: nn.Module, schedule: Schedule, sigma_data: float = 0.5) -> Denoiser:
        check_copies(backbone, outputs=1)
        return Denoiser(backbone, schedule, self.target, sigma_data)

    def draw(self, shape: tuple[int, ...], generator: Generator = None) -> tuple[Tensor, Tensor]:
        u = uniforms(shape[0], stratified=self.stratified, generator=generator)
        eps = randn(shape, generator)
        if self.offset:
            eps += self.offset * randn((*shape[:2], *[1] * (len(shape) - 2)), generator)
        return u, eps

    def regress(
        self, denoiser: Learner, x0: Tensor, u: Tensor, eps: Tensor, condition: Condition | None = None
    ) -> Tensor:
        level = denoiser.schedule.level(self.times(u, denoiser.schedule))
        here = level.like(x0)
        a, b = self.target.coefficients(here)
        prediction = denoiser.predict(here.alpha * x0 + here.sigma * eps, level, condition)
        _, out = self.target.skip_out(level)
        loss = self.weight(level, out) * out**2 * self.loss(prediction, a * x0 + b * eps)
        if isinstance(self.weight, Balanced):
            loss = loss + self.weight.price(level)
        return self.times.correct(u, loss) if isinstance(self.times, Adaptive) else loss
