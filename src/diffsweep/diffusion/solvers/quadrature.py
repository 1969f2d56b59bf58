"""Weights of a multistep method: the integral of the polynomial through the last values of a quantity.

Along the probability flow each of three quantities is the exact slope of a rescaled state (n = sigma / alpha):

    eps  = d (x / alpha) / d n                          in x / alpha,          integrated over n
    v    = d (x / (alpha + sigma)) / d (n / (1 + n))    in x / (alpha+sigma),  integrated over n / (1 + n)
    x0   = d (x / sigma) / d (1 / n)                    in x / sigma,          integrated over 1 / n

so a step aims at the mean of that quantity over the step, and a multistep method estimates the mean from the
polynomial, in some variable, through its last values: Adams-Bashforth's, LMS's, DEIS's and UniPC's weights alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from diffsweep.diffusion.level import Level
from diffsweep.diffusion.noise import Leg
from diffsweep.diffusion.schedules.base import Schedule

QUANTITIES = ("x0", "eps", "v")
VARIABLES = ("logsnr", "noise", "share", "time")


def variable(name: str, schedule: Schedule) -> Callable[[Tensor], Tensor]:
    """The map from noise n, a float64 tensor, to the variable in which the polynomial is drawn.

    ``logsnr`` is log(1 / n^2), ``noise`` n itself, ``share`` is n / (1 + n), ``time`` the schedule's t.
    """
    return {
        "logsnr": lambda n: -2 * n.log(),
        "noise": lambda n: n,
        "share": lambda n: n / (1 + n),
        "time": lambda n: torch.as_tensor(schedule.time(-2 * n.log())),
    }[name]


def weights(
    quantity: str, name: str, nodes: Sequence[Sequence[Level]], legs: Sequence[Leg], schedule: Schedule
) -> list[list[float]]:
    """For each leg the weights, summing to 1, with which the values at its nodes estimate the quantity's mean over it.

    Args:
        quantity: x0, eps or v.
        name: Variable in which the polynomial is drawn.
        nodes: For each leg the levels at which the quantity is known, all legs the same number; alpha > 0,
            but for the share of noise.
        legs: The steps, from t towards s, with fresh noise if u is below s; s may be clean for eps and v, if the
            variable is finite there.
        schedule: What time means.
    """
    if not legs:
        return []
    draw = variable(name, schedule)
    points, shares = (value.to(torch.float64) for value in _gauss())
    start, stop, landing = (
        torch.tensor([getattr(leg, end).noise for leg in legs], dtype=torch.float64)[:, None] for end in "tsu"
    )
    if quantity == "x0":
        # 1 / n grows like exp(lambda); with fresh noise the state forgets faster, by the ratio of the landings.
        h = (start / stop).log()
        faster = (start / landing).log()
        n = stop * torch.exp(h * (1 - points))
        density = torch.exp(-faster * (1 - points)) * shares
    elif quantity == "v":
        high, low = (
            torch.tensor([_share(getattr(leg, end)) for leg in legs], dtype=torch.float64)[:, None] for end in "ts"
        )
        mixed = high + (low - high) * points
        n, density = mixed / (1 - mixed), shares.expand(len(legs), -1)
    else:
        n, density = start + (stop - start) * points, shares.expand(len(legs), -1)
    at = draw(n)
    if name == "share":
        known = torch.tensor([[_share(level) for level in row] for row in nodes], dtype=torch.float64)
    else:
        known = draw(torch.tensor([[level.noise for level in row] for row in nodes], dtype=torch.float64))
    density = density / density.sum(1, keepdim=True)
    count = known.shape[1]
    result = []
    for j in range(count):
        others = [i for i in range(count) if i != j]
        basis = torch.ones_like(at)
        for i in others:
            basis = basis * (at - known[:, i : i + 1]) / (known[:, j : j + 1] - known[:, i : i + 1])
        result.append((density * basis).sum(1))
    return torch.stack(result, 1).tolist()


def _share(level: Level) -> float:
    return level.sigma / (level.alpha + level.sigma)


@lru_cache(maxsize=1)
def _gauss(points: int = 24) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on [0, 1], from the eigenvalues of the Jacobi matrix (Golub and Welsch 1969)."""
    k = torch.arange(1, points, dtype=torch.float64)
    off = k / (4 * k**2 - 1).sqrt()
    values, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return (values + 1) / 2, vectors[0] ** 2
