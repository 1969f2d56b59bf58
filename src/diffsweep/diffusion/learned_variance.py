"""A learned variance: the network also says where log Sigma lies between the posterior's variance and the forward one.

    Sigma = exp(v log beta + (1 - v) log beta~),   p(x_s | x_t) = N(posterior mean of the denoised x, Sigma)

for a step from t to s. On the variance-preserving path with these levels' log-SNR, beta = 1 - (alpha_t / alpha_s)^2 and
beta~ = beta sigma_s^2 / sigma_t^2, so that all formulas need but

    log (Sigma / beta~) = v log (sigma_t^2 / sigma_s^2)
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoiser, check_copies
from diffsweep.diffusion.diffuser import Diffuser
from diffsweep.diffusion.generators import Generator
from diffsweep.diffusion.level import Level, Scalar
from diffsweep.diffusion.objective import Objective
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.target import Target
from diffsweep.mistakes import above, whole


class SpreadDenoiser(Denoiser):
    """A denoiser that also knows how far x_s spreads around its mean given x_t (arXiv 2102.09672, eq. 15).

    It denoises as any other; v stays behind from the latest call.

    Args:
        backbone: Network as of ``Denoiser``, but with twice the channels out: what the target asks for, then v.
        schedule: The schedule it is trained on.
        target: What the first half of the output means.
        sigma_data: Root mean square of the data.

    Raises:
        ValueError: as ``Denoiser``, or if the network says of itself that its ``outputs`` are not 2.
    """

    def __init__(self, backbone: nn.Module, schedule: Schedule, target: Target, sigma_data: float = 0.5) -> None:
        check_copies(backbone, outputs=2)
        super().__init__(_Halves(backbone), schedule, target, sigma_data)

    @property
    def v(self) -> Tensor:
        """Where log Sigma lies between log beta~ (0) and log beta (1) by the latest call, of x's shape."""
        assert isinstance(self.backbone, _Halves)
        assert self.backbone.second is not None, "the denoiser has to be called first"
        return self.backbone.second.to(torch.promote_types(self.backbone.second.dtype, torch.float32))

    def spread(self, t: Level, s: Level) -> Tensor:
        """The standard deviation of p(x_s | x_t) over that of the posterior, elementwise, of x's shape.

        Args:
            t: Level of the latest call.
            s: A cleaner level, sigma > 0.
        """
        return (log_ratio(t.like(self.v), s.like(self.v)) * self.v / 2).exp()


class LearnedVariance(Objective):
    """Improved DDPM's hybrid objective L_simple + lambda L_vlb (arXiv 2102.09672, eq. 16), in continuous time.

    L_vlb is the sum over ``steps`` steps from t to s = t - 1/steps of the posterior's KL divergence from p(x_s | x_t),
    in nats, a mean over the data's dimensions,

        KL = (l + exp(-l) (1 + (snr_s - snr_t) (x0 - denoised)^2) - 1) / 2,   l = log (Sigma / beta~)

    from which the mean gets no gradient. The last step, which starts at t <= 1/steps, is left out: there the paper
    takes a likelihood of 8-bit values, and samplers add no noise.

    Args:
        simple: L_simple, which trains the mean; its times should be uniform for L_vlb to be the paper's.
        steps: Length of the chain whose bound it is, >= 2.
        vlb: lambda, > 0.

    Raises:
        ValueError: for a number out of range.
    """

    network_outputs = 2

    def __init__(self, simple: Diffuser, steps: int = 1000, vlb: float = 0.001) -> None:
        super().__init__()
        whole("steps", steps, 2)
        above("vlb", vlb)
        self.simple = simple
        self.steps = steps
        self.vlb = vlb

    def build(self, backbone: nn.Module, schedule: Schedule, sigma_data: float = 0.5) -> SpreadDenoiser:
        return SpreadDenoiser(backbone, schedule, self.simple.target, sigma_data)

    def draw(self, shape: tuple[int, ...], generator: Generator = None) -> tuple[Tensor, Tensor]:
        return self.simple.draw(shape, generator)

    def regress(
        self, denoiser: Denoiser, x0: Tensor, u: Tensor, eps: Tensor, condition: Condition | None = None
    ) -> Tensor:
        assert isinstance(denoiser, SpreadDenoiser), "the denoiser has to be built by this objective"
        seen = _Seen(denoiser)
        simple = self.simple.regress(seen, x0, u, eps, condition)
        t = torch.as_tensor(denoiser.schedule.time(seen.level.logsnr))
        s = torch.maximum(t - 1 / self.steps, t.clamp(max=1 / self.steps))
        above, below = (denoiser.schedule.level(time).like(x0) for time in (t, s))
        error = x0 - seen.x0.detach()
        return simple + self.vlb * self.steps * divergence(above, below, denoiser.v, error).flatten(1).mean(1)


class _Seen:
    """A denoiser that tells where its network was last called and what came out."""

    level: Level
    x0: Tensor

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.schedule = denoiser.schedule

    def predict(self, x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
        output = self.denoiser.predict(x, level, condition)
        skip, out = self.denoiser.target.skip_out(level.like(x))
        self.level, self.x0 = level, skip * x + out * output
        return output


class _Halves(nn.Module):
    """A network with two outputs as one with the first; the second is kept."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.second: Tensor | None = None

    def forward(self, x: Tensor, logsnr: Tensor, condition: Condition | None = None) -> Tensor:
        y = self.backbone(x, logsnr, condition)
        if y.shape[1] != 2 * x.shape[1]:
            raise ValueError(
                f"a learned variance needs a network with two outputs, {2 * x.shape[1]} channels, but it gave "
                f"{y.shape[1]}: choose backbone.outputs=2"
            )
        first, self.second = y.chunk(2, dim=1)
        return first


def log_ratio(t: Level, s: Level) -> Scalar:
    """log (beta / beta~) of the step from t to s: of sigma_t^2 / sigma_s^2 on the variance-preserving path; >= 0."""
    return _log_sigma2(t) - _log_sigma2(s)


def divergence(t: Level, s: Level, v: Tensor, error: Tensor) -> Tensor:
    """KL(q(x_s | x_t, x0) || p(x_s | x_t)) of every element, in nats, for the error x0 - denoised, of v's shape.

    Its minimum over v, for a mean square error e of the levels' denoiser, is at Sigma / beta~ = 1 + (snr_s - snr_t) e.
    """
    wider = log_ratio(t, s) * v
    signal = s.logsnr.exp() - t.logsnr.exp()
    return (wider + torch.exp(-wider) * (1 + signal * error.square()) - 1) / 2


def _log_sigma2(level: Level) -> Scalar:
    if isinstance(level.logsnr, Tensor):
        return F.logsigmoid(-level.logsnr)
    return 2 * math.log(level.sigma) - math.log(level.alpha**2 + level.sigma**2)
