"""The objectives of a search: which numbers of a result it improves, and in which direction."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from diffsweep.mistakes import alternatives, did_you_mean
from diffsweep.sweep.search.strategy import check_known
from diffsweep.sweep.store.result import Result

DIRECTIONS = ("minimize", "maximize")


class InvalidSearchError(ValueError):
    """The search itself is wrong, so that no further trial can succeed."""


@dataclass(frozen=True)
class Objectives:
    """The numbers of result.json that a search improves.

    Attributes:
        keys: Keys of result.json; empty for the run's main metric.
        directions: minimize or maximize, one for each objective.

    Raises:
        ValueError: in one line, for an unknown direction, or keys and directions that do not go together.
    """

    keys: tuple[str, ...] = ()
    directions: tuple[str, ...] = ("minimize",)

    def __post_init__(self) -> None:
        for direction in self.directions:
            check_known("direction", direction, DIRECTIONS)
        if len(self.directions) != (len(self.keys) or 1):
            raise ValueError(
                f"hydra.sweeper.direction names {len(self.directions)} directions and hydra.sweeper.objective "
                f"{len(self.keys)} objectives: give one direction for each objective"
            )
        if len(set(self.keys)) < len(self.keys):
            raise ValueError(f"hydra.sweeper.objective={', '.join(self.keys)} names one objective twice")

    @property
    def several(self) -> bool:
        """Whether there is more than one objective."""
        return len(self.directions) > 1

    def named(self, metric: str) -> tuple[str, ...]:
        """The keys of the objectives, of results whose main metric is `metric`."""
        return self.keys or (metric,)

    def check(self, available: Collection[str]) -> None:
        """Raise ValueError, naming what is close, for an objective that is none of the `available` keys."""
        for key in self.keys:
            if key not in available:
                hint = did_you_mean(key, available) or f": choose {alternatives(sorted(available))}"
                raise ValueError(f"hydra.sweeper.objective={key} is no number of a result{hint}")

    def values(self, result: Result) -> list[float]:
        """The number of each objective in a result.

        Raises InvalidSearchError for an objective that results do not have, ValueError for one that is not finite here.
        """
        values = []
        for key in self.named(result.metric):
            measure = result.measure(key)
            if measure.reason is not None:
                raise ValueError(f"{key} is {measure.reason}")
            if measure.value is None:
                numbers = [name for name in result.values if result.value(name) is not None]
                raise InvalidSearchError(
                    f"hydra.sweeper.objective={key} is no number of a result: choose from {', '.join(numbers)}"
                )
            values.append(float(measure.value))
        return values
