"""Steps fitted to a denoiser: the noise levels at which a sampler's end points come nearest to the exact flow's.

The gaps between the levels, in log noise, are moved one at a time, up and down, for as long as that brings the end
points of a few trajectories nearer to those of a fine reference solution from the same start (compass search). What is
found for one number of steps serves others by interpolation.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import torch
from torch import Tensor

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.sampler import Sampler
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.solvers.rk4 import RK4
from diffsweep.diffusion.spacing import Given, LogSNR
from diffsweep.mistakes import BadValue


@torch.no_grad()
def fit_spacing(
    sampler: Sampler,
    denoise: Denoise,
    noise: Tensor,
    *,
    schedule: Schedule,
    condition: Condition | None = None,
    fine: int = 150,
    rounds: int = 40,
) -> tuple[Given, float, float]:
    """The spacing that suits a deterministic sampler, in the spirit of Align Your Steps (arXiv 2404.14507).

    Args:
        sampler: Solver and cost; its own spacing is where the search starts.
        denoise: The denoiser of interest, exact or trained.
        noise: Unit Gaussian starts of a few trajectories, (N, ...).
        schedule: Whose range bounds the levels.
        condition: Passed on to ``denoise``.
        fine: Steps of the reference solution, four evaluations each.
        rounds: Passes over all gaps, at most.

    Returns:
        The spacing, and the root mean square distance to the reference before and after.

    Raises:
        ValueError: for a sampler with fresh noise, or of a single step.

    Example:
        >>> import torch
        >>> from diffsweep.diffusion import GaussianMixture, Sampler
        >>> from diffsweep.diffusion.fitting import fit_spacing
        >>> from diffsweep.diffusion.schedules import Cosine
        >>> from diffsweep.diffusion.solvers import DPMpp2M
        >>> from diffsweep.diffusion.spacing import LogSNR
        >>> denoise = GaussianMixture.of([0.5, 0.5], [[-1.0], [1.0]], [0.2, 0.2])
        >>> noise = torch.linspace(-2, 2, 20, dtype=torch.float64)[:, None]
        >>> sampler = Sampler(DPMpp2M(), LogSNR(), nfe=5)
        >>> spacing, before, after = fit_spacing(sampler, denoise, noise, schedule=Cosine(), rounds=5)
        >>> after < before / 2
        True
    """
    if not sampler.deterministic(schedule):
        raise ValueError(
            "steps can be fitted to a deterministic sampler only: with fresh noise no end point is the exact one"
        )
    levels = sampler.levels(schedule)
    if len(levels) < 3:
        raise BadValue("sampler.nfe", sampler.nfe, "gives a single step, which leaves nothing to fit")
    top = min(levels[0].noise, 1e4)
    least = max(schedule.level(0.0).noise, 1e-4)
    start = schedule.levels(torch.tensor([-2 * math.log(top)], dtype=torch.float64))[0]
    reference = Sampler(RK4(), LogSNR(noise_min=max(least, 0.002), noise_max=top), RK4().nfe(fine))
    exact = reference(denoise, noise, schedule=schedule, condition=condition)

    def spacing(gaps: list[float]) -> Given:
        noises, log_noise = [start.noise], math.log(start.noise)
        for gap in gaps:
            log_noise -= math.exp(gap)
            noises.append(math.exp(log_noise))
        return Given(noises)

    def distance(gaps: list[float]) -> float:
        found = spacing(gaps)
        if found.noises[-1] < least:
            return math.inf
        x0 = replace(sampler, spacing=found)(denoise, noise, schedule=schedule, condition=condition)
        return float((x0 - exact).square().mean().sqrt())

    logs = [math.log(max(level.noise, least)) for level in [start, *levels[1:-1]]]
    gaps = [math.log(max(high - low, 1e-3)) for high, low in itertools.pairwise(logs)]
    first = best = distance(gaps)
    sizes = [0.5] * len(gaps)
    for _ in range(rounds):
        for i in range(len(gaps)):
            for sign in (1, -1):
                tried = [*gaps[:i], gaps[i] + sign * sizes[i], *gaps[i + 1 :]]
                error = distance(tried)
                if error < best:
                    gaps, best = tried, error
                    sizes[i] *= 1.5
                    break
            else:
                sizes[i] /= 2
        if max(sizes) < 0.01:
            break
    return spacing(gaps), first, best
