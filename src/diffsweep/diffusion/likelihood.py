"""Exact likelihood: along the probability flow the log-density changes by the divergence of the velocity.

In y = x / alpha and tau = log(sigma / alpha), with D the denoiser, every path is the same flow:

    dy / dtau = y - D,      d log p(y) / dtau = -(dimensions - tr dD/dy)

so log p at the data is that of the noise at the other end plus the integral of the trace.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.guidance.gradient import usable
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.mistakes import BadValue, whole


def log_likelihood(
    denoise: Denoise,
    x0: Tensor,
    schedule: Schedule,
    *,
    steps: int = 100,
    probes: int = 1,
    exact: bool = False,
    noise_min: float = 0.002,
    noise_max: float = 80.0,
    generator: torch.Generator | None = None,
    condition: Condition | None = None,
) -> Tensor:
    """log p(x0) in nats, (N,) (Score-Based Generative Modeling, arXiv 2011.13456, section 4.3, eq. 39).

    The density is that of the data under Gaussian noise of noise_min: from the data's own it differs by the order of
    (noise_min / the data's smallest scale)^2. The far end is taken for pure noise, N(0, noise_max^2), as samplers take
    it: an error of the order of the data's mean over noise_max. Integrated in x0's type by the fourth-order Runge-Kutta
    method, uniform in log noise.

    Args:
        denoise: E[x0 | x], differentiable, each row for itself.
        x0: Data, (N, ...); discrete data want dequantisation noise first, as uniform over a grey level's width.
        schedule: The levels at which the denoiser is asked.
        steps: Of four evaluations each, >= 1.
        probes: Random signs for Hutchinson's estimate of the trace, >= 1, the same along the whole flow: unbiased for
            each step's trace, one gradient each.
        exact: The exact trace instead, with as many gradients as dimensions.
        noise_min: Noise sigma / alpha at the data, cut to the schedule's own range.
        noise_max: Noise at the other end, likewise.
        generator: Source of the probes.
        condition: Passed on to ``denoise``.

    Raises:
        ValueError: for steps or probes < 1, or a range of noise that the schedule does not have.

    Example:
        >>> import torch
        >>> from diffsweep.diffusion import GaussianMixture
        >>> from diffsweep.diffusion.schedules import Cosine
        >>> x0 = torch.tensor([[0.3]], dtype=torch.float64)
        >>> got = log_likelihood(GaussianMixture.of([1.0], [[0.0]], [1.0]), x0, Cosine(), exact=True)
        >>> exact = torch.distributions.Normal(0.0, 1.0).log_prob(x0)
        >>> bool((got - exact).abs() < 1e-3)
        True
    """
    for name, value in (("steps", steps), ("probes", probes)):
        whole(name, value, 1)
    low = max(noise_min, float(schedule.level(0.0).noise))
    high = min(noise_max, float(schedule.level(1.0).noise))
    if not 0 < low < high < math.inf:
        raise BadValue("noise_min", noise_min, f"leaves, with noise_max={noise_max}, nothing of this schedule's range")
    given = None if condition is None else condition.map(usable)
    dimensions = x0[0].numel()
    shape = (1 if exact else probes, *x0.shape)
    signs = torch.randint(0, 2, shape, generator=generator, device=generator.device if generator else None)
    signs = (2 * signs - 1).to(x0)

    def slope(y: Tensor, tau: float) -> tuple[Tensor, Tensor]:
        """(dy / dtau, trace of dD / dy), at log noise tau."""
        level = schedule.level(schedule.time(-2 * tau))
        with torch.inference_mode(False), torch.enable_grad():
            y = y.detach().clone().requires_grad_()
            denoised = denoise(y * level.alpha, level, given)
            trace = _exact_trace(denoised, y) if exact else _estimated_trace(denoised, y, signs)
        return (y - denoised).detach(), trace

    tau, h = math.log(low), math.log(high / low) / steps
    y, gained = x0, x0.new_zeros(len(x0))
    for i in range(steps):
        here = tau + i * h
        k1, t1 = slope(y, here)
        k2, t2 = slope(y + h / 2 * k1, here + h / 2)
        k3, t3 = slope(y + h / 2 * k2, here + h / 2)
        k4, t4 = slope(y + h * k3, here + h)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        gained = gained - h / 6 * (t1 + 2 * t2 + 2 * t3 + t4)
    # With y = high z, the density of z at the far end and the volume's growth over the flow, less the trace's part.
    unit = -(y / high).flatten(1).square().sum(1) / 2 - dimensions * math.log(2 * math.pi) / 2
    return unit - dimensions * math.log(low) + gained


def bits_per_dimension(logp: Tensor, dimensions: int, width: float = 1 / 127.5) -> Tensor:
    """Bits per dimension of log-densities in nats, (N,).

    Args:
        logp: Of data dequantised by uniform noise over one grey level, which bounds the bits from above.
        dimensions: Numbers in one example.
        width: Of one grey level. For uint8 images mapped to [-1, 1] by x / 127.5 - 1 it is 1 / 127.5, which adds
            log2(127.5) = 6.994 bits to the density's own; 1 leaves the density as it is.

    Example:
        >>> round(float(bits_per_dimension(torch.tensor(0.0), 3072)), 3)
        6.994
    """
    return -(logp / dimensions + math.log(width)) / math.log(2)


def _exact_trace(denoised: Tensor, y: Tensor) -> Tensor:
    columns = denoised.flatten(1).unbind(1)
    rows = [
        torch.autograd.grad(column.sum(), y, retain_graph=i + 1 < len(columns))[0].flatten(1)[:, i]
        for i, column in enumerate(columns)
    ]
    return torch.stack(rows).sum(0)


def _estimated_trace(denoised: Tensor, y: Tensor, signs: Tensor) -> Tensor:
    estimates = [
        (torch.autograd.grad(denoised, y, sign, retain_graph=i + 1 < len(signs))[0] * sign).flatten(1).sum(1)
        for i, sign in enumerate(signs)
    ]
    return torch.stack(estimates).mean(0)
