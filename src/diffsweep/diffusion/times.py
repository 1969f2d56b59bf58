"""Which times a training sees: each distribution is a map from a uniform u in [0, 1) to t, its quantile function.

Drawing the u of a batch one per stratum (low discrepancy) therefore works for every distribution alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.mistakes import BadValue, above, share, whole


class Times(Protocol):
    """A distribution of training times."""

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        """Times in (0, 1], (N,), from uniforms in [0, 1), (N,)."""
        ...


@runtime_checkable
class Adaptive(Protocol):
    """Times that follow the loss."""

    def correct(self, u: Tensor, loss: Tensor) -> Tensor:
        """The losses (N,) of the times of u (N,), corrected for how often such times are drawn, and remembered."""
        ...


@dataclass(frozen=True)
class Uniform:
    """t ~ U(0, 1] (DDPM, arXiv 2006.11239, algorithm 1, in continuous time)."""

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        # 1 - u is never 0, where sigma = 0 on some schedules and x0 leaves nothing to predict.
        return 1 - u


@dataclass(frozen=True)
class LogNormal:
    """ln(sigma / alpha) ~ N(mean, std^2) (EDM, arXiv 2206.00364, table 1), on any schedule, cut at its ends.

    Args:
        mean: Mean of the log noise.
        std: Its standard deviation, > 0.
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        above("std", self.std)

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        tiny = torch.finfo(u.dtype).eps
        log_noise = self.mean + self.std * torch.special.ndtri(u.clamp(tiny, 1 - tiny))
        return _time(schedule, -2 * log_noise)


@dataclass(frozen=True)
class LogitNormal:
    """logit(t) ~ N(mean, std^2) (Scaling Rectified Flow Transformers, arXiv 2403.03206, eq. 19).

    Args:
        mean: Mean of logit(t): above 0 prefers noise, below 0 prefers data.
        std: Its standard deviation, > 0.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        above("std", self.std)

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        tiny = torch.finfo(u.dtype).eps
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u.clamp(tiny, 1 - tiny)))


@dataclass(frozen=True)
class LogSNR:
    """log-SNR uniform (Understanding Diffusion Objectives, arXiv 2303.00848), on any schedule, cut at its ends.

    Weights that are stated per unit of log-SNR, such as the sigmoid one, then mean what their papers say.

    Args:
        low: Lowest log-SNR.
        high: Highest one, > low.
    """

    low: float = -10.0
    high: float = 10.0

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise BadValue("low", self.low, f"must be below high={self.high}, both finite")

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        return _time(schedule, self.high + (self.low - self.high) * u)


@dataclass(frozen=True)
class Cosine:
    """The cosine schedule's levels, shifted by image size, on any schedule: "cosine-interpolated".

    The shifted and interpolated cosine schedules of simple diffusion (arXiv 2301.11093, section 3.1), with noise in
    units of the data as in Hourglass Diffusion Transformers (arXiv 2401.11605): the shift goes from that for resolution
    ``low`` where there is much noise to that for ``high`` where there is little.

    Args:
        shape: Of the data, (channels, height, width); points have no resolution and are not shifted.
        low: Resolution to which the highest noise is fitted, > 0.
        high: Resolution to which the lowest is, > 0; None is the images' own, which is no shift.
        sigma_data: Root mean square of the data, > 0.
        noise_min: Lowest noise sigma / alpha.
        noise_max: Highest one.
    """

    shape: Sequence[int]
    low: int = 32
    high: int | None = None
    sigma_data: float = 0.5
    noise_min: float = 1e-3
    noise_max: float = 1e3

    def __post_init__(self) -> None:
        for key, value in (("low", self.low), ("high", self.high), ("sigma_data", self.sigma_data)):
            if value is not None and not 0 < value < math.inf:
                raise BadValue(key, value, "must be above 0")
        if not 0 < self.noise_min < self.noise_max < math.inf:
            raise BadValue("noise_min", self.noise_min, f"must be above 0 and below noise_max={self.noise_max}")

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        size = max(self.shape[1:], default=0)
        sides = (self.low, self.high or size) if size else ()
        low, high = [self._shifted(u, 2 * math.log(side / size)) for side in sides] or [self._shifted(u, 0.0)] * 2
        return _time(schedule, torch.lerp(low, high, u) - 2 * math.log(self.sigma_data))

    def _shifted(self, u: Tensor, shift: float) -> Tensor:
        """log-SNR of the shifted cosine schedule for unit variance, from the highest noise at u = 0 to the lowest."""
        scale = math.exp(shift / 2) / self.sigma_data
        start, stop = math.atan(self.noise_max * scale), math.atan(self.noise_min * scale)
        return shift - 2 * (start + (stop - start) * u).tan().log()


class LossAware(nn.Module):
    """Times in proportion to sqrt(E[loss^2]), with the loss divided by their density (arXiv 2102.09672, section 3.3).

    Its expectation is unchanged, its variance smaller. The uniforms of the base distribution fall into equal bins,
    each with a moving average of squared losses; the base is followed until every bin has been seen.

    Args:
        base: The distribution whose expected loss is trained.
        bins: Number of bins, >= 1.
        decay: Of a bin's average per example, in [0, 1): the last 1 / (1 - decay) examples count.
        uniform: Share of times drawn from the base, in (0, 1].
    """

    squares: Tensor
    counts: Tensor

    def __init__(self, base: Times, bins: int = 100, decay: float = 0.9, uniform: float = 0.001) -> None:
        super().__init__()
        whole("bins", bins, 1)
        share("decay", decay, one=False)
        share("uniform", uniform, zero=False)
        self.base = base
        self.bins = bins
        self.decay = decay
        self.uniform = uniform
        # Discounted sums over the examples of a bin: of squared losses, and of ones.
        self.register_buffer("squares", torch.zeros(bins))
        self.register_buffer("counts", torch.zeros(bins))

    def forward(self, u: Tensor, schedule: Schedule) -> Tensor:
        """Times in (0, 1], (N,), from uniforms in [0, 1), (N,)."""
        index, share, stop = self._place(u)
        within = 1 - ((stop - u) / share).clamp(0, 1)
        return self.base(((index + within) / self.bins).clamp(max=1 - 2**-24), schedule)

    def correct(self, u: Tensor, loss: Tensor) -> Tensor:
        index, share, _ = self._place(u)
        if self.training and torch.is_grad_enabled():
            self._remember(index, loss.detach())
        return loss / (share * self.bins)

    def shares(self) -> Tensor:
        """Share of the times that each bin gets, (bins,)."""
        known = (self.counts > 0).all() & (self.squares.sum() > 0)
        size = torch.where(known, (self.squares / self.counts).sqrt(), torch.ones_like(self.counts))
        return torch.lerp(size / size.sum(), torch.full_like(size, 1 / self.bins), self.uniform)

    def _place(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The bin of each u, its share, and where it ends, (N,) each."""
        shares = self.shares().to(u)
        stops = shares.cumsum(0)
        index = torch.searchsorted(stops, u, right=True).clamp(max=self.bins - 1)
        return index, shares[index], stops[index]

    @torch.no_grad()
    def _remember(self, index: Tensor, loss: Tensor) -> None:
        # A product with a matrix of zeros and ones adds in a fixed order, on every device.
        member = functional.one_hot(index, self.bins).to(self.squares)
        news = torch.stack([loss.to(self.squares).square() @ member, member.sum(0)])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(news)
        fade = self.decay ** news[1]
        self.squares.mul_(fade).add_(news[0])
        self.counts.mul_(fade).add_(news[1])


def _time(schedule: Schedule, logsnr: Tensor) -> Tensor:
    return torch.as_tensor(schedule.time(logsnr)).clamp(min=torch.finfo(logsnr.dtype).eps)
