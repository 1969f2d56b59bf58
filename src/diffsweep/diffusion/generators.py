"""Random numbers from whichever generator is given: torch's draws where it is, on the CPU; a counter on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from diffsweep.philox import CounterGenerator

# None is torch's global generator.
Generator: TypeAlias = torch.Generator | CounterGenerator | None


def rand(shape: Sequence[int], generator: Generator = None) -> Tensor:
    """Uniform numbers in [0, 1), float32, of shape (N, ...)."""
    return generator.rand(shape) if isinstance(generator, CounterGenerator) else torch.rand(shape, generator=generator)


def randn(shape: Sequence[int], generator: Generator = None) -> Tensor:
    """Standard normal numbers, float32, of shape (N, ...)."""
    if isinstance(generator, CounterGenerator):
        return generator.randn(shape)
    return torch.randn(shape, generator=generator)


def uniforms(n: int, *, stratified: bool, generator: Generator = None) -> Tensor:
    """n uniforms in [0, 1), float32: independent, or one in each of n equal strata, in random order.

    Strata lower the variance of the loss (Variational Diffusion Models, arXiv 2107.00630, appendix I.1). A counter
    knows of the elements of other devices, and makes the strata of all.
    """
    u = rand((n,), generator)
    if not stratified:
        return u
    if isinstance(generator, CounterGenerator):
        stratum, count = generator.strata(n)
    else:
        stratum, count = torch.randperm(n, generator=generator), n
    return ((stratum + u) / count).clamp(max=1 - 2**-24)
