"""A sampler tried on an exact model, so that one that does not go with its schedule is refused before any training.

The model is a mixture of two Gaussians of about unit scale, whose denoiser has no error: where samples end far outside
of the data, the steps are too long for the solver, whatever a network may learn.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch

from diffsweep.diffusion.oracle import GaussianMixture
from diffsweep.diffusion.sampler import Sampler
from diffsweep.diffusion.schedules.base import Schedule

# Largest values of the samples, as multiples of the data's largest: above the first a line warns, above the second the
# sampler is refused.
WARN, REFUSE = 3.0, 200.0

_MIXTURE = GaussianMixture.of([0.6, 0.4], [[-1.0], [0.7]], [0.1, 0.2])
_LARGEST = 1.3
_COUNT = 32
# Longer runs only have shorter steps.
_LONGEST = 200
_COSTS = (5, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200)


class UnsuitableSamplerError(ValueError):
    """A sampler that ends far outside of the data on this schedule; the message names its key."""


def check_sampler(sampler: Sampler, schedule: Schedule, key: str = "sampler") -> str | None:
    """A line that warns of samples far outside of the data, or None; some 10 ms. `key` is the sampler's in a config.

    Raises:
        ValueError: saying what to choose, for a sampler that cannot start on this schedule, or ends at nothing finite
            or beyond ``REFUSE`` times the data.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = overshoot(sampler, schedule)
        if found <= WARN:
            # What the sampler itself has to say, as an adaptive one of which too much is expected.
            return str(caught[0].message) if caught else None
        return _judged(sampler, schedule, found, key)


def _judged(sampler: Sampler, schedule: Schedule, found: float, key: str) -> str:
    enough = next((nfe for nfe in _COSTS if nfe > sampler.nfe and _suits(replace(sampler, nfe=nfe), schedule)), None)
    # Below another part an option goes to a place of its own.
    option = key if "." not in key else f"sampler@{key}"
    advice = f"choose {key}.nfe={enough} or more" if enough else f"choose another sampler, as {option}=dpmpp_2m"
    line = (
        f"{key}.nfe={sampler.nfe} is too few for this sampler on this schedule: with an exact model its samples "
        f"reach {found:.3g} times the data's largest value; {advice}"
    )
    if found <= REFUSE:
        return line
    raise UnsuitableSamplerError(line)


def overshoot(sampler: Sampler, schedule: Schedule) -> float:
    """The largest value of samples of the exact model, as a multiple of the data's; infinite if one is not finite."""
    points = (torch.arange(_COUNT, dtype=torch.float64) + 0.5) / _COUNT
    generator = torch.Generator().manual_seed(0)
    noise = torch.special.ndtri(points)[torch.randperm(_COUNT, generator=generator), None]
    shorter = sampler if sampler.nfe <= _LONGEST else replace(sampler, nfe=max(_LONGEST, sampler.least_nfe))
    x = shorter(_MIXTURE, noise, schedule=schedule, generator=generator)
    return float(x.abs().max()) / _LARGEST if x.isfinite().all() else float("inf")


def _suits(sampler: Sampler, schedule: Schedule) -> bool:
    return overshoot(sampler, schedule) <= WARN
