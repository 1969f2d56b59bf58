"""How strong a guidance is: how far it moves samples from where the same noise leads without it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from diffsweep.diffusion.guidance import Guidance, Unguided
from diffsweep.scoring.sampling import Sampling
from diffsweep.settings import TrainerSettings

# A mean over more samples moves by a few per cent.
SAMPLES = 32


def guidance_strength(
    sampling: Sampling, guidance: Guidance, trainer: TrainerSettings, samples: Tensor
) -> float | None:
    """The root mean square difference of samples with and without guidance, in units of that of the data.

    Args:
        sampling: That drew the samples, with its model on the device to compute on.
        guidance: Of the sampling.
        trainer: Of the run.
        samples: The first of them, as stored, (N, ...); 32 are looked at.

    Returns:
        None without guidance.
    """
    if isinstance(guidance, Unguided):
        return None
    dataset = sampling.model.dataset
    numbers = torch.arange(min(SAMPLES, len(samples)))
    free = Sampling(sampling.model, sampling.sampler, sampling.seed, trainer=trainer.uncompiled())
    free.requests = sampling.requests
    device = cast(Tensor, next(sampling.model.denoiser.parameters())).device
    free.to(device)
    with torch.no_grad():
        unguided = free.integrate(numbers.to(device) if free.counting else numbers)
        # As they are stored, so that what both cut off at the ends of their range counts as equal.
        both = torch.cat([samples[: len(numbers)].to(device), dataset.decode(unguided.nan_to_num(0, 0, 0)).to(device)])
        guided, unguided = dataset.encode(both).double().chunk(2)
    return float((guided - unguided).square().mean().sqrt()) / dataset.sigma_data
