"""A denoiser is the conditional mean E[x0 | x_t]; here from a network, by its target's two coefficients."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.level import Level, Scalar, like, scaled
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.target import Target
from diffsweep.mistakes import BadValue, above


class Denoise(Protocol):
    """What a sampler needs: ``denoise(x, level, condition) -> x0``, all of x's shape (N, ...)."""

    def __call__(self, x: Tensor, level: Level, condition: Condition | None = None) -> Tensor: ...


@runtime_checkable
class Spread(Protocol):
    """What a denoiser with a learned variance tells an ancestral sampler."""

    def spread(self, t: Level, s: Level) -> Tensor:
        """The standard deviation of p(x_s | x_t) over the posterior's, elementwise, of x's shape, after a call at t.

        Fresh noise that takes a state to s is multiplied by it; s must be cleaner than t, but not clean.
        """
        ...


class Learner(Protocol):
    """What an objective needs: a schedule to noise on, and the network's own output there."""

    schedule: Schedule

    def predict(self, x: Tensor, level: Level, condition: Condition | None = None) -> Tensor: ...


class EstimateMemory(Protocol):
    """What a network that is shown an earlier estimate of x0 needs while sampling; all tensors are of x's shape."""

    def recall(self, x: Tensor, level: Level) -> Tensor:
        """The estimate to show at this level, zero if there is none."""
        ...

    def keep(self, level: Level, x0: Tensor) -> None:
        """Remember what was estimated at this level."""
        ...


@runtime_checkable
class Copies(Protocol):
    """What a network says of itself if it takes or gives several tensors of the data's shape, side by side.

    A network that says nothing is taken to fit.

    Attributes:
        inputs: How many it takes, beside each other along the first dimension of an example.
        outputs: How many it gives.
    """

    inputs: int
    outputs: int


def check_copies(backbone: nn.Module, *, inputs: int | None = None, outputs: int | None = None) -> None:
    """Refuse a network that takes or gives another number of tensors than a diffuser needs.

    Raises:
        BadValue: naming the number and why.
    """
    if not isinstance(backbone, Copies):
        return
    if inputs not in (None, backbone.inputs):
        sees = "x alone; only diffuser=self_conditioned shows it more" if inputs == 1 else "its earlier estimate too"
        raise BadValue("backbone.inputs", backbone.inputs, f"must be {inputs}: the network sees {sees}")
    if outputs not in (None, backbone.outputs):
        gives = "one prediction" if outputs == 1 else "the mean and the variance"
        raise BadValue("backbone.outputs", backbone.outputs, f"must be {outputs}: this diffuser asks for {gives}")


class Denoiser(nn.Module):
    """E[x0 | x_t] = skip x + out F(x / r, logsnr), with r the standard deviation of x at its level.

    Scaling the input to unit variance is EDM's c_in (arXiv 2206.00364, table 1), for any path; x may lie off the path
    of the schedule, where some solvers ask.

    Args:
        backbone: Network (x of unit variance, logsnr of shape (N,), condition) -> tensor of x's shape.
        schedule: The schedule it is trained on; samplers may use another.
        target: What the network's output means.
        sigma_data: Root mean square of the data.
        memory: Self-conditioning: the backbone sees an earlier estimate of x0 beside x, so it has two inputs.

    Attributes:
        conditional: Whether the backbone is passed the condition; else it is left out, so that guidance may need one
            that the model is not told.

    Raises:
        ValueError: if the target cannot give x0 somewhere on the schedule, as eps where alpha = 0, or if the backbone
            has another number of inputs.
    """

    def __init__(
        self,
        backbone: nn.Module,
        schedule: Schedule,
        target: Target,
        sigma_data: float = 0.5,
        memory: EstimateMemory | None = None,
    ) -> None:
        super().__init__()
        inputs = 1 if memory is None else 2
        check_copies(backbone, inputs=inputs)
        above("sigma_data", sigma_data, why="it is the root mean square of the data")
        if not all(math.isfinite(value) for value in target.skip_out(schedule.level(1.0))):
            raise ValueError(
                f"a network that predicts {type(target).__name__.lower()} cannot give x0 where alpha = 0, and "
                f"schedule={type(schedule).__name__.lower()} starts there: "
                "choose diffuser=v, x0, edm or flow, or schedule=cosine, linear or ve"
            )
        self.backbone = backbone
        self.schedule = schedule
        self.target = target
        self.sigma_data = sigma_data
        self.memory = memory
        self.conditional = True
        # Of the few levels that a sampler asks at.
        self._known: dict[tuple[float, float], tuple[float, float]] = {}

    def forward(self, x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
        """The denoised x, of its shape and type."""
        skip, out = self._skip_out(level, x)
        earlier = self.memory.recall(x, level) if self.memory else None
        predicted = self.predict(x, level, condition, earlier)
        x0 = skip * x + out * predicted if isinstance(out, Tensor) else scaled(x, skip).add_(predicted, alpha=out)
        if self.memory:
            self.memory.keep(level, x0)
        return x0

    def _skip_out(self, level: Level, x: Tensor) -> tuple[Scalar, Scalar]:
        """(skip, out) at a level that need not lie on the schedule's own path, as floats or shaped to multiply x.

        The network has learned its target at the levels of that path, where x is `larger` times smaller; what a target
        such as v means depends on the scale of x, and here is what it means at the path's level with the same log-SNR.
        """
        if isinstance(level.alpha, Tensor) or isinstance(level.sigma, Tensor):
            plain = self.target.skip_out(level.like(x))
            off, *there = self._on_path(level)
            rows = off.view(-1, *[1] * (x.ndim - 1)) if off.ndim else off
            skip, out = (torch.where(rows, like(one, x), other) for one, other in zip(there, plain, strict=True))
            return skip, out
        key = (level.alpha, level.sigma)
        if key not in self._known:
            self._known = self._known if len(self._known) < _LEVELS else {}
            off, *there = self._on_path(Level(*(torch.tensor(value, dtype=torch.float64) for value in key)))
            self._known[key] = (float(there[0]), float(there[1])) if off else self.target.skip_out(level)
        return self._known[key]

    def _on_path(self, level: Level) -> tuple[Tensor, Tensor, Tensor]:
        """Whether a level of tensors lies off the path, and what (skip, out) are there."""
        path = self.schedule.path(level.logsnr)
        larger = torch.hypot(level.alpha, level.sigma) / torch.hypot(path.alpha, path.sigma)
        skip, out = self.target.skip_out(path)
        # At the very ends of a path there may be no other level to compare with.
        off = larger.isfinite() & (larger > 0) & ((larger - 1).abs() > _ROUNDING)
        return off, torch.as_tensor(skip / larger), torch.as_tensor(out)

    def predict(
        self, x: Tensor, level: Level, condition: Condition | None = None, earlier: Tensor | None = None
    ) -> Tensor:
        """The network's own output F, of x's shape and type; it is shown an earlier estimate of x0 if one is given."""
        logsnr = level.logsnr
        if not isinstance(logsnr, Tensor):
            logsnr = _filled(logsnr, len(x), x.device)
        here = level.like(x)
        scale = (here.alpha**2 * self.sigma_data**2 + here.sigma**2) ** -0.5
        seen = scaled(x, scale)
        if earlier is not None:
            seen = torch.cat([seen, earlier / self.sigma_data], 1)
        if x.dtype != torch.float32:
            # A sampler may start from noise of any float type; the network has but one.
            weight = next(self.backbone.parameters(), x)
            seen, logsnr = seen.to(weight.dtype), logsnr.to(torch.promote_types(logsnr.dtype, weight.dtype))
        output = self.backbone(seen, logsnr, condition if self.conditional else None)
        return output if output.dtype == x.dtype else output.to(x.dtype)


# Whose coefficients a denoiser remembers.
_LEVELS = 4096

# Two levels that differ by a smaller factor are one.
_ROUNDING = 1e-5


# A sampler asks at the same few levels for every batch.
@lru_cache(maxsize=2048)
def _filled(value: float, n: int, device: torch.device) -> Tensor:
    # Else what is made while sampling could not be differentiated through later.
    with torch.inference_mode(False):
        return torch.full((n,), value, device=device)
