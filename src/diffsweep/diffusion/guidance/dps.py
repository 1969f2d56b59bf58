"""Diffusion posterior sampling: after each step, x moves against the gradient of the measurement's error.

    x_s <- x_s - (scale / |r|) grad_x |r|^2,   r = y - A(x0(x_t))

for data that were measured as y = A(x0) + noise. A displacement d of x_s is an aim moved by d over the step's gain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.linalg import vector_norm

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.guidance.base import check_scale, following, gain
from diffsweep.diffusion.guidance.gradient import usable, with_gradient
from diffsweep.diffusion.level import Level


@dataclass(frozen=True)
class DPS:
    """A denoiser that knows a measurement (Diffusion Posterior Sampling, arXiv 2209.14687, algorithm 1).

    Exactly the algorithm's displacement with a deterministic sampler that asks once a step; a stochastic one adds its
    noise after landing below s, which makes the displacement up to twice as large. A displacement of x is 2 scale long
    for an operator that picks out numbers, however long the step is and however small the error has become. So samples
    end at an error |r| of about ``scale`` if the steps suffice to get there: fewer steps want a larger scale, more
    measured numbers too.

    Args:
        denoise: Of whole data, guided or not; differentiable in x.
        operator: A, from x0 (N, ...) to measurements (N, ...); differentiable, each row for itself.
        y: The measurements, of the operator's shape.
        levels: Those that the sampler visits, ``sampler.levels(schedule)``.
        scale: The paper's zeta', >= 0: about the error |r| that remains. The paper takes 0.3 to 1 for images, of which
            |r| is a norm over thousands of pixels.

    Raises:
        ValueError: for scale < 0.

    Example:
        >>> import torch
        >>> from diffsweep.diffusion import GaussianMixture, Sampler
        >>> from diffsweep.diffusion.schedules import Cosine
        >>> from diffsweep.diffusion.solvers import Euler
        >>> from diffsweep.diffusion.spacing import LogSNR
        >>> mixture = GaussianMixture.of([0.5, 0.5], [[-1.0, -1.0], [1.0, 1.0]], [0.1, 0.1])
        >>> sampler, y = Sampler(Euler(), LogSNR(), nfe=200), torch.full((4, 1), 1.0)
        >>> dps = DPS(mixture, lambda x0: x0[:, :1], y, sampler.levels(Cosine()))
        >>> x0 = sampler(dps, torch.randn(4, 2), schedule=Cosine())
        >>> bool(torch.all(x0[:, 1] > 0)), bool(torch.all((x0[:, :1] - y).abs() < 0.15))
        (True, True)
    """

    denoise: Denoise
    operator: Callable[[Tensor], Tensor]
    y: Tensor
    levels: Sequence[Level]
    scale: float = 0.1

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def __call__(self, x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
        given = None if condition is None else condition.map(usable)
        y = usable(self.y)

        def measured(x: Tensor) -> tuple[Tensor, Tensor]:
            x0 = self.denoise(x, level, given)
            return x0, vector_norm((y - self.operator(x0)).flatten(1), dim=1)

        x0, gradient = with_gradient(measured, x)
        # grad |r|^2 / |r| = 2 grad |r|
        return x0.sub(gradient, alpha=2 * self.scale / gain(level, following(level, self.levels)))
