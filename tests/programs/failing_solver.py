"""A user's own solver that raises a ValueError of its own when it is asked for a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Failing:
    """Counts as a method of order 1, and fails."""

    order = 1

    def nfe(self, steps: int) -> int:
        """One call a step."""
        return steps

    def plan(self, legs: Any, schedule: Any) -> None:
        """Nothing to prepare."""

    def aim(self, *arguments: Any) -> Any:
        """Fails."""
        raise ValueError("not enough values to unpack")
