"""Inversion: the sampler's own steps taken backwards, from data to the noise that leads to them."""

from __future__ import annotations

import itertools

from torch import Tensor

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.level import Level
from diffsweep.diffusion.noise import Leg
from diffsweep.diffusion.sampler import Sampler
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.transfer import transfer
from diffsweep.mistakes import BadValue


def invert(
    sampler: Sampler, denoise: Denoise, x0: Tensor, *, schedule: Schedule, condition: Condition | None = None
) -> Tensor:
    """Unit noise for which ``sampler(denoise, noise, schedule=schedule)`` gives x0 back, up to its error.

    The probability flow from the cleanest level before clean data to the noisiest, by the sampler's solver on the
    sampler's levels (with Euler: DDIM's encoding, arXiv 2010.02502, section 4.3). At that first level x is taken as
    alpha x0, which leaves out half of noise^2 times the score: take a spacing that ends at little noise. Fresh noise
    of a stochastic sampler is left out.

    Args:
        sampler: Its solver and spacing are used; one evaluation a step, or what the solver takes.
        denoise: E[x0 | x].
        x0: Data, (N, ...).
        schedule: Where the levels lie.
        condition: Passed on to ``denoise``.

    Returns:
        Noise of x0's shape and type, of unit variance for data of the denoiser's distribution.

    Raises:
        ValueError: for a sampler of a single step, which has no level between data and noise.

    Example:
        >>> import torch
        >>> from diffsweep.diffusion import GaussianMixture, Sampler
        >>> from diffsweep.diffusion.schedules import Cosine
        >>> from diffsweep.diffusion.solvers import Heun
        >>> from diffsweep.diffusion.spacing import Karras
        >>> sampler = Sampler(Heun(), Karras(), nfe=200)
        >>> denoise = GaussianMixture.of([0.5, 0.5], [[-1.0], [1.0]], [0.3, 0.3])
        >>> x0 = torch.tensor([[-1.2], [0.9]])
        >>> noise = invert(sampler, denoise, x0, schedule=Cosine())
        >>> bool((sampler(denoise, noise, schedule=Cosine()) - x0).abs().max() < 1e-3)
        True
    """

    def bound(x: Tensor, level: Level, condition: Condition | None = condition) -> Tensor:
        return denoise(x, level, condition)

    levels = sampler.levels(schedule)[-2::-1]
    if len(levels) < 2:
        raise BadValue("sampler.nfe", sampler.nfe, "is a single step, which cannot be inverted: give more")
    legs = [Leg(s, t, t) for s, t in itertools.pairwise(levels)]
    memory = sampler.solver.plan(legs, schedule)
    x = x0 * levels[0].alpha
    for leg in legs:
        aim, memory = sampler.solver.aim(bound, x, leg.t, leg.s, memory)
        x = transfer(x, leg.t, leg.u, aim)
    return x / levels[-1].sigma
