"""The numbers of a set of samples: every metric once, each number with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from diffsweep.evaluation.extractor import Extractor
from diffsweep.evaluation.features import Features
from diffsweep.evaluation.interval import Estimate
from diffsweep.evaluation.metric import Metric, Real, settings

# Fewer samples than this make no blocks to leave out.
_LEAST = 8


@dataclass(frozen=True)
class Evaluation:
    """What is measured, and in which features.

    Attributes:
        extractor: of the features.
        metrics: at least one; the main number of the first is the main number of the evaluation.

    Raises:
        ValueError: for no metric, or one that needs what the extractor does not give.
    """

    extractor: Extractor
    metrics: Sequence[Metric]

    def __post_init__(self) -> None:
        if not self.metrics:
            raise ValueError("there is nothing to measure: choose at least one metric, as metric=[frechet]")
        for metric in self.metrics:
            lacking = [name for name in metric.needs if name not in self.extractor.outputs]
            if lacking:
                raise ValueError(
                    f"metric {metric.short} needs {' and '.join(lacking)}, which extractor {self.extractor.space} does "
                    f"not give (it gives {', '.join(self.extractor.outputs)}): leave the metric out of metric=[...] or "
                    "choose another extractor"
                )

    @property
    def main(self) -> str:
        """Name of the number by which cells are ranked."""
        return self.extractor.called(self.metrics[0].short)

    @property
    def outputs(self) -> list[str]:
        """The extractor's outputs that the metrics look at."""
        return sorted({"features", *(name for metric in self.metrics for name in metric.needs)})

    def measure(self, drawn: Features, real: Real) -> dict[str, Estimate]:
        """All numbers of `drawn`, by full name, each also without every block of samples.

        Raises:
            ValueError: for features that are not finite, or fewer than 2 samples.
        """
        return self._measure(drawn, real, range(len(drawn.blocks)) if len(drawn) >= _LEAST else ())

    def values(self, drawn: Features, real: Real) -> dict[str, float]:
        """All numbers of `drawn`, by full name; errors as `measure`."""
        return {name: estimate.value for name, estimate in self._measure(drawn, real, ()).items()}

    def _measure(self, drawn: Features, real: Real, blocks: Sequence[int]) -> dict[str, Estimate]:
        if len(drawn) < 2:
            raise ValueError(f"a distance needs at least 2 samples, not {len(drawn)}")
        for name in self.outputs:
            broken = int((~torch.isfinite(drawn[name])).any(dim=1).sum())
            if broken:
                raise ValueError(f"{name} of {broken} of {len(drawn)} samples are NaN or infinite")
        drawn = drawn.to(self.extractor.device)
        found: dict[str, Estimate] = {}
        for metric in self.metrics:
            numbers = metric.prepare(drawn, real)
            whole = numbers(None)
            without: list[Mapping[str, float]] = [numbers(block) for block in blocks]
            for short, value in whole.items():
                found[self.extractor.called(short)] = Estimate(value, [one[short] for one in without], settings(metric))
        return found
