"""Inpainting by replacement: where the data are known, the denoised x is what is known.

Every step aims at the known values there, so that with x = alpha x0 + sigma eps the known part stays on the exact path
from its eps to them, and ends at them. RePaint's form (arXiv 2201.09865, eq. 8a) instead overwrites that part of x with
the known data under noise drawn afresh; a stochastic sampler's own noise does the same, gradually: at each level the
known part has the same distribution in both forms, only what it shares from level to level differs.

The rest of x feels the known part only through the network, under as much noise as everything else, which leaves it
too near its unconditional distribution; RePaint's going back and forth, an itinerary of the sampler, reduces that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.level import Level


@dataclass(frozen=True)
class Inpaint:
    """A denoiser that knows a part of x0.

    Args:
        denoise: Of whole data, guided or not.
        known: The known data, (N, ...) or broadcast to it; ignored outside the mask.
        mask: True where ``known`` is to be kept, of a shape that broadcasts with it.

    Example:
        >>> import torch
        >>> from diffsweep.diffusion import GaussianMixture, Sampler
        >>> from diffsweep.diffusion.schedules import Cosine
        >>> from diffsweep.diffusion.solvers import Euler
        >>> from diffsweep.diffusion.spacing import LogSNR
        >>> mixture = GaussianMixture.of([0.5, 0.5], [[-1.0, -1.0], [1.0, 1.0]], [0.1, 0.1])
        >>> inpaint = Inpaint(mixture, torch.tensor([1.0, 0.0]), torch.tensor([True, False]))
        >>> x0 = Sampler(Euler(), LogSNR(), nfe=20)(inpaint, torch.randn(4, 2), schedule=Cosine())
        >>> bool(torch.all(x0[:, 0] == 1))
        True
    """

    denoise: Denoise
    known: Tensor
    mask: Tensor

    def __call__(self, x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
        return torch.where(self.mask, self.known.to(x), self.denoise(x, level, condition))
