"""A solver answers one question per step: which x0 do we aim at?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from diffsweep.diffusion.level import Level


class Solver(Protocol):
    """One step of an integrator, as an aim.

    A step from t to s is ``transfer(x, t, s, x0)`` with x0 from ``aim``; what a multistep method remembers goes
    through ``memory`` (None at the first step), so that a solver has no state of its own.
    """

    @property
    def order(self) -> int:
        """Global order of convergence without noise injection, measured by the tests."""
        ...

    def steps(self, nfe: int) -> int:
        """The largest number of steps that costs at most ``nfe`` network evaluations, nfe >= 1."""
        ...

    def nfe(self, steps: int) -> int:
        """The network evaluations that ``steps`` steps cost, the last of which ends at clean data."""
        ...

    def aim(
        self, denoise: Callable[[Tensor, Level], Tensor], x: Tensor, t: Level, s: Level, memory: Any
    ) -> tuple[Tensor, Any]:
        """The x0 to aim at from x at level t when going to level s, and the memory for the next step."""
        ...
