"""Image-to-image: a sampler that starts from given data under noise, somewhere on its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from diffsweep.diffusion.level import Level
from diffsweep.diffusion.sampler import Sampler
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.spacing import Spacing
from diffsweep.mistakes import BadValue


@dataclass(frozen=True)
class LastSteps:
    """A spacing without its first, noisiest steps.

    Args:
        spacing: Of all steps.
        strength: Share of the steps that are taken, in (0, 1]; one at least is.

    Raises:
        ValueError: for a strength out of range.
    """

    spacing: Spacing
    strength: float

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise BadValue("strength", self.strength, "must be above 0 and at most 1 (from pure noise)")

    def __call__(self, schedule: Schedule, steps: int) -> list[Level]:
        """See `Spacing`: fewer levels than ``steps + 1``."""
        taken = max(1, round(steps * self.strength))
        return list(self.spacing(schedule, steps))[-taken - 1 :]


def starting_from(sampler: Sampler, strength: float) -> Sampler:
    """The same sampler on the last of its steps only, to be called with what `noised` gives.

    Image-to-image as "SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations" (arXiv
    2108.01073) has it: data under the noise of a level are taken from there to clean data. Raises as `LastSteps`.

    Example:
        >>> import torch
        >>> from diffsweep.diffusion import GaussianMixture, Sampler
        >>> from diffsweep.diffusion.schedules import Cosine
        >>> from diffsweep.diffusion.solvers import Euler
        >>> from diffsweep.diffusion.spacing import LogSNR
        >>> mixture = GaussianMixture.of([0.5, 0.5], [[-1.0], [1.0]], [0.1, 0.1])
        >>> part = starting_from(Sampler(Euler(), LogSNR(), nfe=20), 0.3)
        >>> noise = noised(torch.full((100, 1), 0.9), torch.randn(100, 1), part.levels(Cosine()))
        >>> bool(torch.all(part(mixture, noise, schedule=Cosine()) > 0))
        True
    """
    return replace(sampler, spacing=LastSteps(sampler.spacing, strength))


def noised(x0: Tensor, noise: Tensor, levels: Sequence[Level]) -> Tensor:
    """What a sampler takes in the place of noise so that it starts at alpha x0 + sigma noise.

    Args:
        x0: Data, (N, ...).
        noise: Unit noise of the same shape.
        levels: Those that the sampler visits.
    """
    # A sampler multiplies what it is given by sigma of its first level.
    return noise + x0 * (levels[0].alpha / levels[0].sigma)
