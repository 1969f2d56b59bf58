"""Self-conditioning: the network sees its own earlier estimate of x0 beside x, and only has to better it.

While training the estimate is made at the same level, without gradient, for half of the examples; the others see zero.
While sampling it is that of the level before.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Denoiser
from diffsweep.diffusion.diffuser import Diffuser
from diffsweep.diffusion.generators import Generator
from diffsweep.diffusion.level import Level
from diffsweep.diffusion.objective import Objective
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.mistakes import share


class SelfConditioned(Objective):
    """Trains as another diffuser does, with self-conditioning (Analog Bits, arXiv 2208.04202, algorithm 1).

    The coin is thrown per example and comes from the batch's uniforms, so a step stays a function of its number.

    Args:
        objective: How the model is trained otherwise.
        probability: Share of the examples that see an estimate, in (0, 1].

    Raises:
        ValueError: for a probability out of range.
    """

    network_inputs = 2

    def __init__(self, objective: Diffuser, probability: float = 0.5) -> None:
        super().__init__()
        share("probability", probability, zero=False)
        self.objective = objective
        self.probability = probability

    def build(self, backbone: nn.Module, schedule: Schedule, sigma_data: float = 0.5) -> Denoiser:
        return Denoiser(backbone, schedule, self.objective.target, sigma_data, LastEstimate())

    def draw(self, shape: tuple[int, ...], generator: Generator = None) -> tuple[Tensor, Tensor]:
        return self.objective.draw(shape, generator)

    def regress(
        self, denoiser: Denoiser, x0: Tensor, u: Tensor, eps: Tensor, condition: Condition | None = None
    ) -> Tensor:
        # The leading digits of u choose the level; those from the 13th bit on are uniform whatever the level is.
        shown = (u * 2**12) % 1 < self.probability
        return self.objective.regress(_Shown(denoiser, shown), x0, u, eps, condition)


class _Shown:
    """A denoiser whose network is shown its own first estimate of some examples."""

    def __init__(self, denoiser: Denoiser, shown: Tensor) -> None:
        self.denoiser = denoiser
        self.schedule = denoiser.schedule
        self.shown = shown

    def predict(self, x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
        nothing = torch.zeros_like(x)
        with torch.no_grad():
            skip, out = self.denoiser.target.skip_out(level.like(x))
            first = skip * x + out * self.denoiser.predict(x, level, condition, nothing)
        # In some versions of PyTorch autocast hands the second pass weights that were cast for the first.
        torch.clear_autocast_cache()
        earlier = torch.where(self.shown.view(-1, *[1] * (x.ndim - 1)), first, nothing)
        return self.denoiser.predict(x, level, condition, earlier)


class LastEstimate:
    """The estimate of the last noisier level: a second look at one level is shown what the first look was.

    So a trajectory that starts where the last one ended, be it after a single step, sees nothing of it; one that goes
    back up to a noisier level starts anew.
    """

    def __init__(self) -> None:
        self.noise = -1.0
        self.shown: Tensor | None = None
        self.latest: Tensor | None = None

    def recall(self, x: Tensor, level: Level) -> Tensor:
        if isinstance(level.noise, Tensor):
            # Levels of single examples are no trajectory.
            return torch.zeros_like(x)
        if self.latest is None or self.latest.shape != x.shape or level.noise > self.noise or self.shown is None:
            self.shown = torch.zeros_like(x)
        elif level.noise < self.noise:
            self.shown = self.latest
        self.noise = level.noise
        return self.shown.to(x)

    def keep(self, level: Level, x0: Tensor) -> None:
        if not isinstance(level.noise, Tensor):
            self.latest = x0.detach()
