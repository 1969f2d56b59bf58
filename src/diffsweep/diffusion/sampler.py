"""The one sampling loop: over the legs of an itinerary, aim -> transfer -> renoise.

The spacing says which levels are visited, the noise policy makes legs of them, and the solver says at which x0 each
leg aims. Where a leg starts above the place at which the last one landed, fresh noise takes the state there.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoise, Spread
from diffsweep.diffusion.generators import Generator
from diffsweep.diffusion.level import Level, scaled
from diffsweep.diffusion.noise import SDE, Leg, Noise
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.solvers.base import Solver
from diffsweep.diffusion.spacing import Spacing
from diffsweep.diffusion.transfer import renoise, transfer
from diffsweep.mistakes import BadValue, whole
from diffsweep.philox import CounterGenerator

Generators = Generator | Sequence[torch.Generator]


@dataclass(slots=True)
class Step:
    """One step of a trajectory.

    Attributes:
        index: 0 for the first step.
        level: The level that the step has reached, fresh noise included; clean (sigma = 0) for the last.
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
        nfe: Network evaluations allowed per sample, >= 1; the number of steps follows from it.
        noise: Where fresh noise comes in; ``SDE(0)`` is deterministic.

    Raises:
        ValueError: for nfe < 1, or too few for a single step.

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
    noise: Noise = field(default=SDE())

    def __post_init__(self) -> None:
        whole("nfe", self.nfe, 1)
        if self.least_nfe > self.nfe:
            raise BadValue("nfe", self.nfe, f"is too few for this sampler, whose least cost is {self.least_nfe}")

    @property
    def least_nfe(self) -> int:
        """The network evaluations of a single step."""
        return self._cost(1)

    def _cost(self, steps: int) -> int:
        return self.solver.nfe(self.noise.count(steps))

    @property
    def steps(self) -> int:
        """The number of steps of the spacing."""
        # The cost of a step is at least one evaluation, and more steps never cost less.
        return bisect_right(range(1, self.nfe + 1), self.nfe, key=self._cost)

    @property
    def nfe_used(self) -> int:
        """The network evaluations really made, at most ``nfe``."""
        return self._cost(self.steps)

    def levels(self, schedule: Schedule) -> list[Level]:
        """The ``steps + 1`` levels visited, noisiest first, the last one clean."""
        return self.spacing(schedule, self.steps)

    def legs(self, schedule: Schedule) -> list[Leg]:
        """The legs over those levels, fresh noise included."""
        return self.noise.legs(self.levels(schedule))

    def deterministic(self, schedule: Schedule) -> bool:
        """Whether no fresh noise comes in."""
        start, itinerary = _itinerary(self, schedule)
        return _same(start, itinerary[0].leg.t) and not any(stop.climb for stop in itinerary)

    def __call__(
        self,
        denoise: Denoise,
        noise: Tensor,
        *,
        schedule: Schedule,
        generator: Generators = None,
        condition: Condition | None = None,
    ) -> Tensor:
        """Samples of ``noise``'s shape and type.

        Args:
            denoise: E[x0 | x], called ``nfe_used`` times.
            noise: Unit Gaussian, (N, ...); the sampler scales it to its first level.
            schedule: Where the levels lie.
            generator: Source of the fresh noise; one per sample makes each sample independent of its batch.
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
        condition: Condition | None = None,
    ) -> Iterator[Step]:
        """The same as a call, yielding every step; the last one's x is the sample."""

        def bound(x: Tensor, level: Level, condition: Condition | None = condition) -> Tensor:
            return denoise(x, level, condition)

        # A model that has learned how uncertain x0 is scales the noise of each step by it.
        spread = denoise.spread if isinstance(denoise, Spread) else None
        start, itinerary = _itinerary(self, schedule)
        first = itinerary[0].leg
        x = scaled(noise, start.sigma)
        if not _same(first.t, start):
            x = renoise(x, start, first.t, _fresh(x, generator, first.boost))
        memory: Any = None
        for index, (leg, goal, climb, posterior, plan) in enumerate(itinerary):
            if plan is not None:
                # Another trajectory will start from the same plan.
                memory = copy.copy(plan.memory)
            x0, memory = self.solver.aim(bound, x, leg.t, leg.s, memory)
            x = transfer(x, leg.t, leg.u, x0)
            if climb:
                z = _fresh(x, generator, climb)
                x = renoise(x, leg.u, goal, z.mul_(spread(leg.t, goal)) if spread and posterior else z)
            yield Step(index, goal, x, x0)


class _Plan(NamedTuple):
    """A solver's first memory."""

    memory: Any


class _Stop(NamedTuple):
    """A leg, and where the state stands after it.

    Attributes:
        leg: The leg.
        goal: Level after fresh noise, if any.
        climb: Standard deviation of the noise that leads there; 0 for none.
        posterior: Whether that noise is exactly as much as DDPM's posterior has.
        plan: The solver's memory, where it starts anew.
    """

    leg: Leg
    goal: Level
    climb: float
    posterior: bool
    plan: _Plan | None


def _itinerary(sampler: Sampler, schedule: Schedule) -> tuple[Level, list[_Stop]]:
    """Everything that does not depend on x, computed once for a sampler on a schedule."""
    try:
        return _remembered(sampler, schedule)
    except TypeError:
        # A part that cannot be hashed, as a plain list in somebody's own spacing.
        return _planned(sampler, schedule)


def _planned(sampler: Sampler, schedule: Schedule) -> tuple[Level, list[_Stop]]:
    levels = sampler.levels(schedule)
    legs = sampler.noise.legs(levels)
    starts = [0, *(i for i in range(1, len(legs)) if legs[i].t.noise >= legs[i - 1].t.noise)]
    plans = {
        i: _Plan(sampler.solver.plan(legs[i:stop], schedule))
        for i, stop in zip(starts, [*starts[1:], len(legs)], strict=True)
    }
    following = [*(leg.t for leg in legs[1:]), legs[-1].u]
    boosts = [*(leg.boost for leg in legs[1:]), 0.0]
    stops = [
        _Stop(leg, goal, 0.0 if _same(goal, leg.u) else boost, _posterior(leg, goal), plans.get(i))
        for i, (leg, goal, boost) in enumerate(zip(legs, following, boosts, strict=True))
    ]
    return levels[0], stops


def _same(a: Level, b: Level) -> bool:
    """Whether two levels differ by rounding only: no noise leads from one to the other."""
    return math.isclose(a.alpha, b.alpha, rel_tol=1e-12) and math.isclose(a.sigma, b.sigma, rel_tol=1e-12)


def _posterior(leg: Leg, goal: Level) -> bool:
    return goal.sigma > 0 and math.isclose(leg.u.noise, goal.noise**2 / leg.t.noise, rel_tol=1e-9)


_remembered = lru_cache(maxsize=256)(_planned)


def _fresh(x: Tensor, generator: Generators, deviation: float) -> Tensor:
    z = randn_like(x, generator)
    return z if deviation == 1 else scaled(z, deviation)


def randn_like(x: Tensor, generator: Generators) -> Tensor:
    """Unit Gaussian noise of x's shape, type and device, from one generator, from one per row, or the global one."""
    if generator is None:
        return torch.randn_like(x)
    if isinstance(generator, CounterGenerator):
        return generator.randn(x.shape).to(x.dtype)
    if isinstance(generator, torch.Generator):
        return torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)
    rows = [torch.randn(x.shape[1:], generator=row, device=row.device, dtype=x.dtype) for row in generator]
    return torch.stack(rows).to(x.device, non_blocking=True)
