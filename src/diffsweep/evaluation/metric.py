"""A metric is one short file and one YAML: from the features of drawn and of real samples to a few named numbers.

    def prepare(self, drawn, real) -> Numbers

does what is needed once; `Numbers(None)` then are the metric's numbers, and `Numbers(k)` the same without block k of
the drawn samples, from which their uncertainty follows (see `interval`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias, runtime_checkable

from diffsweep.evaluation.features import Features
from diffsweep.evaluation.moments import Moments

# Block to leave out, or None -> numbers by short name, as {"fd": 1.3}; see `Extractor.called`.
Numbers: TypeAlias = Callable[[int | None], Mapping[str, float]]


class Real(Protocol):
    """What drawn samples are compared with."""

    @property
    def features(self) -> Features:
        """Features of real samples, with labels: all, or a fixed choice of them where there are very many."""
        ...

    def moments(self, output: str = "features") -> Moments:
        """Mean and covariance of an output over all real samples."""
        ...

    def keep(self, what: str, compute: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
        """Numbers that follow from the real samples and from what `what` says, computed once.

        Args:
            what: names them, with all that they depend on beside the real samples and the code of this package.
            compute: gives them where they are not known yet.
        """
        ...


class Metric(Protocol):
    """What is measured of drawn samples.

    Attributes:
        short: its main number; cells are ranked by that of the first metric.
        needs: outputs of the extractor that it looks at; one that the extractor lacks is refused before any training.
    """

    @property
    def short(self) -> str: ...

    @property
    def needs(self) -> tuple[str, ...]: ...

    def prepare(self, drawn: Features, real: Real) -> Numbers:
        """Numbers of `drawn`; those that do not apply are left out, as those by label where there are no labels.

        Args:
            drawn: on the device to compute on; finite.
            real: the reference.
        """
        ...


@runtime_checkable
class ExplainsAbsence(Protocol):
    """A metric that can say why it has no number of some samples."""

    def absence(self, drawn: Features, real: Real) -> str:
        """Why `prepare` gives no main number, in words that go on after "there is none: "."""
        ...


@runtime_checkable
class NeedsSamples(Protocol):
    """A metric that has no number of few samples."""

    def least_samples(self, dimension: int) -> int:
        """How many samples it needs in a feature space of this dimension."""
        ...


def settings(metric: object) -> str:
    """What a metric is, for the record: the name of its class and the values that it was made with."""
    given = [f"{name}={getattr(metric, name)}" for name in inspect.signature(type(metric)).parameters]
    return " ".join([type(metric).__name__, *given])
