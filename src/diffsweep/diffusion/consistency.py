"""Consistency: the denoised ends of two neighbouring points of one trajectory must agree, so that one step suffices.

    loss = d(f(x_t, t), f(x_s, s)) / (n_t - n_s),   n = sigma / alpha

where f is the denoiser, the gradient stops at the cleaner level s, and f(x, clean) = x holds by the target's form. In
training x_s comes from the same (x0, eps) as x_t, in distillation from one step of a teacher.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, final

import torch
from torch import Tensor, nn

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoise, Denoiser, check_copies
from diffsweep.diffusion.generators import Generator, randn, uniforms
from diffsweep.diffusion.level import Level
from diffsweep.diffusion.loss import Loss
from diffsweep.diffusion.objective import Objective
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.spacing import Spacing
from diffsweep.diffusion.target import Target
from diffsweep.diffusion.times import Adaptive, Times
from diffsweep.mistakes import BadValue, whole


class Consistency(Objective):
    """What consistency training and distillation share: which levels are neighbours, and how they are compared.

    The interval of the spacing in which a time falls gives the pair, so that log-normal times are the discretised
    log-normal of Improved Techniques (arXiv 2310.14189, section 3.5). The number of intervals doubles from ``coarse``
    to ``fine`` at equal distances over the training (section 3.4); the count of steps is a buffer, so that a resumed
    training goes on at the right place.

    Args:
        target: What the network predicts; any but x0, for which f(x, clean) = x does not hold.
        times: Distribution of training times.
        loss: The distance d.
        spacing: Where the levels stand, the first with finite noise; start sampling at the same.
        steps: Length of the training, >= 1; only a growing number of intervals depends on it.
        coarse: Number of intervals at the start, >= 2.
        fine: Number at the end, >= coarse; the same for a fixed number.
        stratified: Draw a batch's times one per stratum.
    """

    step: Tensor

    def __init__(
        self,
        target: Target,
        times: Times,
        loss: Loss,
        spacing: Spacing,
        steps: int,
        coarse: int,
        fine: int,
        stratified: bool,
    ) -> None:
        super().__init__()
        for key, value, least in (("steps", steps, 1), ("coarse", coarse, 2), ("fine", fine, coarse)):
            whole(key, value, least)
        skip, out = target.skip_out(Level(1.0, 1e-6))
        if not (abs(skip - 1) < 1e-3 and abs(out) < 1e-3):
            raise ValueError(
                f"a network that predicts {type(target).__name__.lower()} does not leave clean data alone, on which "
                "consistency rests: choose diffuser/target=edm, v, eps, flow or score"
            )
        self.target = target
        self.times = times
        self.loss = loss
        self.spacing = spacing
        self.stratified = stratified
        self.intervals = [coarse]
        while self.intervals[-1] < fine:
            self.intervals.append(min(2 * self.intervals[-1], fine))
        self.period = max(1, steps // len(self.intervals))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self._known: tuple[Schedule, Tensor] | None = None

    @final
    def build(self, backbone: nn.Module, schedule: Schedule, sigma_data: float = 0.5) -> Denoiser:
        check_copies(backbone, outputs=1)
        self._known = schedule, self._table(schedule)
        self.begin(backbone, schedule)
        return Denoiser(backbone, schedule, self.target, sigma_data)

    @abstractmethod
    def begin(self, backbone: nn.Module, schedule: Schedule) -> None:
        """Prepare the network for its training on this schedule, or raise ValueError if it cannot serve."""

    @abstractmethod
    def neighbour(
        self, x: Tensor, t: Level, s: Level, x0: Tensor, eps: Tensor, condition: Condition | None = None
    ) -> Tensor:
        """x at level s, on the trajectory of x at the noisier level t; levels of shape (N,)."""

    @final
    def draw(self, shape: tuple[int, ...], generator: Generator = None) -> tuple[Tensor, Tensor]:
        u = uniforms(shape[0], stratified=self.stratified, generator=generator)
        return u, randn(shape, generator)

    @final
    def regress(
        self, denoiser: Denoiser, x0: Tensor, u: Tensor, eps: Tensor, condition: Condition | None = None
    ) -> Tensor:
        t, s = self.pair(denoiser.schedule, u)
        if self.training and torch.is_grad_enabled():
            self.step += 1
        here = t.like(x0)
        x = here.alpha * x0 + here.sigma * eps
        with torch.no_grad():
            y = self.neighbour(x, t, s, x0, eps, condition)
        # The same dropout at both levels. The gradient's side goes first: in some versions of PyTorch autocast would
        # hand it the weights that it has cast without gradient for the other.
        with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
            guess = denoiser(x, t, condition)
        with torch.no_grad():
            there = s.like(x0)
            goal = torch.where(there.sigma > 0, denoiser(y, s, condition), y / there.alpha)
        loss = self.loss(guess, goal) / (t.noise - s.noise)
        return self.times.correct(u, loss) if isinstance(self.times, Adaptive) else loss

    @final
    def pair(self, schedule: Schedule, u: Tensor) -> tuple[Level, Level]:
        """The noisier and the cleaner level of each example, (N,), from uniforms in [0, 1), at the current step.

        Raises:
            ValueError: if the spacing starts where alpha = 0.
        """
        known, table = self._known or (None, None)
        if table is None or known is not schedule:
            table = self._table(schedule)
        # All on the device, for the host not to wait for it.
        table = table.to(u)
        self._known = schedule, table
        stage = (self.step // self.period).clamp(max=len(self.intervals) - 1)
        noise, alpha, sigma = table.index_select(0, stage.view(1))[0]
        # Rounding must not lift a time that is cut to the schedule's own end out of the interval that starts there.
        upper = torch.searchsorted(noise, schedule.level(self.times(u, schedule)).noise * (1 - 1e-5))
        upper = upper.clamp(min=1).minimum(noise.isfinite().sum() - 1)
        return Level(alpha[upper], sigma[upper]), Level(alpha[upper - 1], sigma[upper - 1])

    def _table(self, schedule: Schedule) -> Tensor:
        """(stages, 3, fine + 1): noise, alpha and sigma of each stage's levels, the clean one first, padded by inf."""
        table = torch.full((len(self.intervals), 3, self.intervals[-1] + 1), math.inf, dtype=torch.float64)
        for row, intervals in zip(table, self.intervals, strict=True):
            levels = self.spacing(schedule, intervals)[::-1]
            if not math.isfinite(levels[-1].noise):
                raise ValueError(
                    "consistency compares levels by their noise sigma / alpha, which is infinite where this spacing "
                    f"starts on schedule={type(schedule).__name__.lower()}: "
                    "choose sampler/spacing@diffuser.spacing=karras or logsnr"
                )
            row[:, : len(levels)] = torch.tensor(
                [[level.noise, level.alpha, level.sigma] for level in levels], dtype=table.dtype
            ).T
        return table


class ConsistencyTraining(Consistency):
    """Consistency training (arXiv 2303.01469, algorithm 3) with the improved techniques of arXiv 2310.14189.

    No average of the weights as target, weight 1 / (n_t - n_s); with pseudo-Huber loss and log-normal times.

    Args:
        target: What the network predicts; any but x0, for which f(x, clean) = x does not hold.
        times: Distribution of training times.
        loss: The distance d.
        spacing: Where the levels stand, the first with finite noise; start sampling at the same.
        steps: Length of the training, >= 1; only a growing number of intervals depends on it.
        coarse: Number of intervals at the start, >= 2.
        fine: Number at the end, >= coarse; the same for a fixed number.
        stratified: Draw a batch's times one per stratum.

    Raises:
        ValueError: for a target that moves clean data, or a number out of range.
    """

    def __init__(
        self,
        target: Target,
        times: Times,
        loss: Loss,
        spacing: Spacing,
        steps: int,
        coarse: int = 10,
        fine: int = 1280,
        stratified: bool = True,
    ) -> None:
        super().__init__(target, times, loss, spacing, steps, coarse, fine, stratified)

    def begin(self, backbone: nn.Module, schedule: Schedule) -> None:
        pass

    def neighbour(
        self, x: Tensor, t: Level, s: Level, x0: Tensor, eps: Tensor, condition: Condition | None = None
    ) -> Tensor:
        there = s.like(x)
        return there.alpha * x0 + there.sigma * eps


class ConsistencyDistillation(Consistency):
    """Consistency distillation (arXiv 2303.01469, algorithm 2): x_s is one Heun step of a teacher away from x_t.

    The weight, and no average of the weights as target, are those of ``ConsistencyTraining``.

    Args:
        target: What the network predicts; any but x0, for which f(x, clean) = x does not hold.
        times: Distribution of training times.
        loss: The distance d.
        spacing: Where the levels stand, the first with finite noise; start sampling at the same.
        steps: Length of the training, >= 1; only a growing number of intervals depends on it.
        teacher: The denoiser to follow, in evaluation mode, or the name of one that whoever trains has to load. It is
            no part of this module: neither trained, nor averaged, nor saved with it.
        warm_start: Begin with the weights of the teacher, if it is a ``Denoiser``; the networks must then be the same.
        coarse: Number of intervals at the start, >= 2.
        fine: Number at the end, >= coarse; the same for a fixed number.
        stratified: Draw a batch's times one per stratum.

    Raises:
        ValueError: without a teacher, for a target that moves clean data, or a number out of range.
    """

    def __init__(
        self,
        target: Target,
        times: Times,
        loss: Loss,
        spacing: Spacing,
        steps: int,
        teacher: Denoise | str | None = None,
        warm_start: bool = True,
        coarse: int = 18,
        fine: int = 18,
        stratified: bool = True,
    ) -> None:
        super().__init__(target, times, loss, spacing, steps, coarse, fine, stratified)
        if teacher is None:
            raise BadValue(
                "teacher",
                None,
                "must name the finished fit to distill, as diffuser.teacher=1f2e3d4c5b6a; its name is `fit` in its "
                "result.json and its folder's name below fits in paths.runs",
            )
        self.teacher = _Guest(teacher)
        self.warm_start = warm_start

    def begin(self, backbone: nn.Module, schedule: Schedule) -> None:
        teacher = self.teacher.model
        if isinstance(teacher, Denoiser):
            _same_path(schedule, teacher.schedule)
            if self.warm_start:
                _take_over(backbone, self.target, teacher)

    def neighbour(
        self, x: Tensor, t: Level, s: Level, x0: Tensor, eps: Tensor, condition: Condition | None = None
    ) -> Tensor:
        here, there = t.like(x), s.like(x)
        aim = self.teacher(x, t, condition)
        slope = self.teacher(_transfer(x, here, there, aim), s, condition)
        # The step to clean data, where n_s = 0, is Euler's.
        lean = torch.where(there.sigma > 0, here.noise / there.noise / 2, 0)
        return _transfer(x, here, there, aim + (slope - aim) * lean)


class _Guest:
    """A model that a module uses without owning it: unseen by optimizers, averages, checkpoints and copies."""

    def __init__(self, model: Denoise | str) -> None:
        self.model = model
        self.device: torch.device | None = None

    def __deepcopy__(self, memo: Any) -> _Guest:
        return self

    def __call__(self, x: Tensor, level: Level, condition: Condition | None) -> Tensor:
        if isinstance(self.model, str):
            raise ValueError(f"the teacher {self.model} has only been named: give the denoiser itself to train with it")
        if isinstance(self.model, nn.Module) and self.device != x.device:
            self.model.to(x.device)
            self.device = x.device
        return self.model(x, level, condition)


def _transfer(x: Tensor, t: Level, s: Level, x0: Tensor) -> Tensor:
    """``transfer`` for levels that differ between examples, shaped like x."""
    ratio = s.sigma / t.sigma
    return x * ratio + x0 * (s.alpha - t.alpha * ratio)


def _same_path(schedule: Schedule, teachers: Schedule) -> None:
    logsnr = torch.linspace(-6, 6, 5, dtype=torch.float64)
    if not torch.allclose(schedule.path(logsnr).sigma, teachers.path(logsnr).sigma):
        raise ValueError(
            f"the teacher was trained on the path of schedule={type(teachers).__name__.lower()}, which is not that of "
            f"schedule={type(schedule).__name__.lower()}: choose the teacher's"
        )


def _take_over(backbone: nn.Module, target: Target, teacher: Denoiser) -> None:
    hint = "choose the teacher's, or diffuser.warm_start=false"
    if target != teacher.target:
        raise ValueError(f"the teacher's network predicts {teacher.target}, and this diffuser {target}: {hint}")
    try:
        backbone.load_state_dict(teacher.backbone.state_dict())
    except RuntimeError as error:
        raise ValueError(f"the teacher's network has other weights than this backbone: {hint}") from error
