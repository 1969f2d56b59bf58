"""A network that is exact: it finds out its level from what it is told, and predicts what it is asked to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffsweep.diffusion import GaussianMixture, Level
from diffsweep.diffusion.schedules import linear_betas

MIXTURE = GaussianMixture.of([0.3, 0.7], [[-0.8] * 64, [0.5] * 64], [0.3, 0.2])


class Oracle(nn.Module):
    """The exact answer for `MIXTURE` as a foreign network gives it.

    Args:
        predicts: As in model.yaml.
        level: As in model.yaml.
        path: preserving, exploding or straight.
        scale: As in model.yaml, with sigma_data 0.5.
    """

    def __init__(self, predicts: str, level: str, path: str, scale: str = "path") -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))
        self.predicts, self.level, self.path, self.scale = predicts, level, path, scale

    def noise(self, told: float) -> float:
        one = torch.tensor(told, dtype=torch.float64)
        if self.level == "timestep":
            return float(linear_betas().level((told + 1) / 1000).noise)
        found = {
            "noise": lambda: one,
            "log": lambda: one.exp(),
            "quarter_log": lambda: (4 * one).exp(),
            "logsnr": lambda: (-one / 2).exp(),
            "time": lambda: one / (1 - one),
            "data_time": lambda: (1 - one) / one,
        }
        return float(found[self.level]())

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        n = self.noise(float(told[0]))
        alpha = {"preserving": (1 + n**2) ** -0.5, "exploding": 1.0, "straight": 1 / (1 + n)}[self.path]
        here = Level(alpha, alpha * n)
        if self.scale == "unit":
            x = x * (here.alpha**2 + here.sigma**2) ** 0.5
        elif self.scale == "data":
            x = x * (here.alpha**2 * 0.25 + here.sigma**2) ** 0.5
        x0 = MIXTURE(x.flatten(1), here).view_as(x)
        eps = (x - here.alpha * x0) / here.sigma
        width = (here.sigma**2 + here.alpha**2 * 0.25) ** 0.5
        answers = {
            "x0": x0,
            "eps": eps,
            "v": here.alpha * eps - here.sigma * x0,
            "flow": eps - x0,
            "velocity": x0 - eps,
            "score": -eps / here.sigma,
            "edm": (x0 * here.sigma / 0.5 - eps * here.alpha * 0.5) / width,
        }
        return answers[self.predicts] + self.nothing.to(x.dtype)
