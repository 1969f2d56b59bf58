"""A reference of given features, for tests of metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from diffsweep.evaluation.features import Features
from diffsweep.evaluation.frechet import Moments


@dataclass(frozen=True, eq=False)
class Known:
    """A reference made of given features."""

    features: Features

    @cached_property
    def known(self) -> Moments:
        return Moments.of(self.features["features"])

    def moments(self, output: str = "features") -> Moments:
        assert output == "features"
        return self.known

    def keep(self, what: str, compute: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
        return compute()
