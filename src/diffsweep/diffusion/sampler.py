"""The one sampling loop: aim -> transfer -> renoise, over the levels of a spacing.

Each step goes from t to s by way of a cleaner level u and fresh noise back up to s. ``churn`` says how far u lies
beyond s, in units of the step in log-SNR: ``noise_u = noise_s (noise_s / noise_t)^churn``. Churn 0 is deterministic,
churn 1 with Euler is exactly DDPM's posterior, infinite churn is consistency sampling (denoise fully, noise again).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.level import Level
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.solvers.base import Solver
from diffsweep.diffusion.spacing import Spacing
from diffsweep.diffusion.transfer import renoise, transfer

Generators = torch.Generator | Sequence[torch.Generator] | None


@dataclass(frozen=True)
class Step:
    """One step of a trajectory.

    Attributes:
        index: 0 for the first step.
        level: The level that the step has reached; clean (sigma = 0) for the last.
        x: State at that level, (N, ...).
        x0: The x0 that the step aimed at, of x's shape.
    """

    index: int
    level: Level
    x: Tensor
    x0: Tensor


@dataclass(frozen=True)
class Sampler:
    """Integrates from unit noise to data at a stated cost.

    Args:
        solver: Which x0 each step aims at.
        spacing: Where the steps stand.
        nfe: Network evaluations allowed per sample, >= 1; the solver derives its steps from it.
        churn: Noise put back at each step, >= 0; 0 is deterministic, 1 ancestral, ``inf`` consistency sampling.

    Raises:
        ValueError: for nfe < 1 or churn < 0.

    Example:
        >>> import torch
        >>> from diffsweep.diffusion import GaussianMixture, Sampler
        >>> from diffsweep.diffusion.schedules import Cosine
        >>> from diffsweep.diffusion.solvers import DPMpp2M
        >>> from diffsweep.diffusion.spacing import LogSNR
        >>> sampler = Sampler(DPMpp2M(), LogSNR(), nfe=20)
        >>> denoise = GaussianMixture.of([0.5, 0.5], [[-1.0], [1.0]], [0.1, 0.1])
        >>> x0 = sampler(denoise, torch.randn(4, 1), schedule=Cosine())
        >>> bool(((x0.abs() - 1).abs() < 0.5).all())
        True
    """

    solver: Solver
    spacing: Spacing
    nfe: int = 20
    churn: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.nfe, bool) or not isinstance(self.nfe, int) or self.nfe < 1:
            raise ValueError(f"sampler.nfe={self.nfe} must be a whole number of network evaluations, 1 or more")
        if not self.churn >= 0:
            raise ValueError(f"sampler.churn={self.churn} must be 0 (deterministic) or more (1 is ancestral)")

    @property
    def steps(self) -> int:
        """The number of steps taken."""
        return self.solver.steps(self.nfe)

    @property
    def nfe_used(self) -> int:
        """The network evaluations really made, at most ``nfe``."""
        return self.solver.nfe(self.steps)

    def levels(self, schedule: Schedule) -> list[Level]:
        """The ``steps + 1`` levels visited, noisiest first, the last one clean."""
        return self.spacing(schedule, self.steps)

    def check(self, schedule: Schedule) -> None:
        """Try the sampler on one number, so that a schedule it cannot serve is refused before any training.

        Raises:
            ValueError: saying which choice to change.
        """
        # What can go wrong goes wrong in the first or the last step; a long run need not be made twice.
        short = replace(self, nfe=min(self.nfe, 50))
        x = short(lambda x, level, condition=None: x * 0, torch.ones(1, 1), schedule=schedule)
        if not x.isfinite().all():
            raise ValueError(f"this sampler is not finite on schedule={type(schedule).__name__.lower()}")

    def __call__(
        self,
        denoise: Denoise,
        noise: Tensor,
        *,
        schedule: Schedule,
        generator: Generators = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Samples of ``noise``'s shape and type.

        Args:
            denoise: E[x0 | x], called ``nfe_used`` times.
            noise: Unit Gaussian, (N, ...); the sampler scales it to its first level.
            schedule: Where the levels lie.
            generator: Source of the noise that churn adds; one per sample makes each sample independent of its batch.
            condition: Passed on to ``denoise``.
        """
        x = noise
        for step in self.trajectory(denoise, noise, schedule=schedule, generator=generator, condition=condition):
            x = step.x
        return x

    def trajectory(
        self,
        denoise: Denoise,
        noise: Tensor,
        *,
        schedule: Schedule,
        generator: Generators = None,
        condition: Tensor | None = None,
    ) -> Iterator[Step]:
        """The same as a call, yielding every step; the last one's x is the sample."""

        def bound(x: Tensor, level: Level) -> Tensor:
            return denoise(x, level, condition)

        levels = self.levels(schedule)
        x = noise * levels[0].sigma
        memory: Any = None
        for index, (t, s) in enumerate(itertools.pairwise(levels)):
            x0, memory = self.solver.aim(bound, x, t, s, memory)
            u = self._overshoot(t, s)
            x = transfer(x, t, u, x0)
            if u is not s:
                x = renoise(x, u, s, randn_like(x, generator))
            yield Step(index, s, x, x0)

    def _overshoot(self, t: Level, s: Level) -> Level:
        if self.churn == 0 or s.sigma == 0:
            return s
        return s.at(0.0 if math.isinf(self.churn) else s.noise * (s.noise / t.noise) ** self.churn)


def randn_like(x: Tensor, generator: Generators) -> Tensor:
    """Unit Gaussian noise of x's shape, type and device, from one generator, from one per row, or the global one."""
    if generator is None:
        return torch.randn_like(x)
    if isinstance(generator, torch.Generator):
        return torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)
    rows = [torch.randn(x.shape[1:], generator=row, device=row.device, dtype=x.dtype) for row in generator]
    return torch.stack(rows).to(x.device)
