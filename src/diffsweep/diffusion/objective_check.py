"""An objective tried on a few examples, so that one that cannot train is refused or warned of before any training."""

from __future__ import annotations

import copy

import torch

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoiser
from diffsweep.diffusion.objective import Objective

# A loss that is more than so many times the median one at some time is decided by the few examples that fall there.
WARN = 1e5

# From the first to the last uniform number that single precision knows, and in between.
_UNIFORMS = (2.0**-24, 1e-4, 0.3, 0.5, 0.7, 0.9999, 1 - 2.0**-24)

# How many examples an objective is tried on.
EXAMPLES = len(_UNIFORMS)


def check_objective(
    objective: Objective, denoiser: Denoiser, shape: tuple[int, ...], condition: Condition | None = None
) -> str | None:
    """A line that warns of a loss without bound on the denoiser's schedule, or None.

    Args:
        objective: It is left as it is.
        denoiser: What it has built, untrained.
        shape: Of one example.
        condition: Of `EXAMPLES` examples, what the network is told.

    Raises:
        ValueError: unless it gives one loss per example.
    """
    generator, count = torch.Generator().manual_seed(0), len(_UNIFORMS)
    x0 = torch.randn(count, *shape, generator=generator)
    _, eps = objective.draw((count, *shape), generator)
    # A copy, for what it remembers of a batch must not be of this one.
    with torch.no_grad():
        loss = copy.deepcopy(objective).regress(denoiser, x0, torch.tensor(_UNIFORMS), eps, condition)
    if loss.shape != (count,):
        raise ValueError(
            f"diffuser={type(objective).__name__} gives losses of shape {tuple(loss.shape)} for {count} examples: its "
            f"regress must give one number per example, ({count},)"
        )
    largest = float(loss.max() / loss.median())
    if largest <= WARN:
        return None
    return (
        f"the loss of this diffuser has no bound on this schedule: near one end it is {largest:.1g} times that in the "
        "middle, so that a few examples decide the training; choose diffuser/weight=min_snr or uniform"
    )
