"""A solver answers one question per leg: which x0 do we aim at?

A value of eps, or of the velocity v = eps - x0, answers it too, for it names the line ``x = alpha x0 + sigma eps``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, final

from torch import Tensor

from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.level import Level, scaled
from diffsweep.diffusion.noise import Leg
from diffsweep.diffusion.schedules.base import Schedule


class Solver(Protocol):
    """An integrator, as an aim.

    A step from t to s is ``transfer(x, t, s, x0)`` with x0 from ``aim``; what a multistep method remembers, and what
    it has computed ahead, goes through ``memory``, so that a solver has no state of its own.
    """

    @property
    def order(self) -> int:
        """Global order of convergence without fresh noise, measured by the tests."""
        ...

    def nfe(self, steps: int) -> int:
        """The network evaluations that ``steps`` steps cost, the last of which ends at clean data; at least ``steps``.

        A sampler takes as many steps as its ``nfe`` pays for.
        """
        ...

    def plan(self, legs: Sequence[Leg], schedule: Schedule) -> Any:
        """The first leg's memory: coefficients that depend on the levels only, as plain numbers, ahead of the loop.

        The legs start at ever cleaner levels; after a climb to a noisier one, a new plan begins. What is returned is
        kept, and a shallow copy of it given to the first ``aim`` of every trajectory.
        """
        ...

    def aim(self, denoise: Denoise, x: Tensor, t: Level, s: Level, memory: Any) -> tuple[Tensor, Any]:
        """The x0 to aim at from x at level t when going to level s, and the memory for the next leg."""
        ...


class NoPlan:
    """A solver's `plan` where it has nothing to compute ahead: the first leg has no memory."""

    @final
    def plan(self, legs: Sequence[Leg], schedule: Schedule) -> None:
        return None


def eps_at(x: Tensor, t: Level, x0: Tensor) -> Tensor:
    """The eps of x at level t with this x0: ``(x - alpha x0) / sigma``."""
    return slope_at("eps", x, t, x0)


def x0_at(x: Tensor, t: Level, eps: Tensor) -> Tensor:
    """The x0 of x at level t with this eps: ``(x - sigma eps) / alpha``."""
    return aim_at("eps", x, t, eps)


def slope_at(quantity: str, x: Tensor, t: Level, x0: Tensor) -> Tensor:
    """Of x at level t with this x0: x0 itself, eps, or v = eps - x0 = ``(x - (alpha + sigma) x0) / sigma``."""
    if quantity == "x0":
        return x0
    return scaled(x, 1 / t.sigma).add_(x0, alpha=-scale_of(quantity, t) / t.sigma)


def aim_at(quantity: str, x: Tensor, t: Level, value: Tensor) -> Tensor:
    """The x0 of x at level t with this value of x0, eps or v."""
    if quantity == "x0":
        return value
    scale = scale_of(quantity, t)
    return scaled(x, 1 / scale).add_(value, alpha=-t.sigma / scale)


def scale_of(quantity: str, t: Level) -> float:
    """c of ``x = c x0 + sigma value``: alpha for eps, alpha + sigma for v."""
    return t.alpha + t.sigma if quantity == "v" else t.alpha


def needs_signal(t: Level, method: str) -> None:
    """Refuse to start where alpha = 0, for a method that divides by it.

    Raises:
        ValueError: naming what to choose instead.
    """
    if t.alpha == 0:
        raise ValueError(
            f"{method} cannot start from pure noise (alpha = 0), as this schedule does with this spacing: "
            "choose sampler/spacing=karras or logsnr, sampler=ddim or dpmpp_2m, or sampler.spacing.first=0.999"
        )
