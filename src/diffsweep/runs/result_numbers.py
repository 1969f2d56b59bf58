"""The numbers that the results of a config will have, known before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from omegaconf import DictConfig

from diffsweep.evaluation.evaluate import Evaluation
from diffsweep.evaluation.features import Features
from diffsweep.evaluation.moments import Moments
from diffsweep.runs.build import make_measures
from diffsweep.runs.instantiate import make

# Numbers of every result, whatever is measured.
_ALWAYS = (
    "broken_samples",
    "evaluate_seconds",
    "extract_seconds",
    "fit_kept_step",
    "fit_seconds",
    "fit_steps",
    "nfe",
    "nfe_asked",
    "parameters",
    "sample_seconds",
    "samples",
    "steps",
)
# Random features that stand for samples: enough for every metric, and few enough to take milliseconds.
_SAMPLES, _DIMENSION, _CLASSES = 512, 8, 10


@dataclass(frozen=True)
class _RandomReal:
    """Random features in the place of real ones: see `evaluation.metric.Real`."""

    features: Features

    def moments(self, output: str = "features") -> Moments:
        return Moments.of(self.features[output])

    def keep(self, what: str, compute: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
        return compute()


def number_keys(cfg: DictConfig) -> set[str]:
    """The keys of all numbers that a result of this config can have, for the objectives of a search.

    The metrics are asked, with random features. Raises ValueError for a config that measures nothing sensible.
    """
    evaluation, model_metrics, text_metrics = make_measures(cfg, make(cfg, "dataset"))
    names = _names(evaluation) | {metric.short for metric in (*model_metrics, *text_metrics)}
    return {*_ALWAYS, *names, *(f"{name}_{end}" for name in names for end in ("low", "high"))}


def _names(evaluation: Evaluation) -> set[str]:
    drawn, real = (_random(evaluation, seed) for seed in (0, 1))
    names = set()
    for metric in evaluation.metrics:
        try:
            shorts = set(metric.prepare(drawn, _RandomReal(real))(None))
        except Exception:
            # A metric of the user's may want features of another shape; its main number it has all the same.
            shorts = set()
        names |= {evaluation.extractor.called(short) for short in (metric.short, *shorts)}
    return names


def _random(evaluation: Evaluation, seed: int) -> Features:
    generator = torch.Generator().manual_seed(seed)
    outputs = {name: torch.randn(_SAMPLES, _DIMENSION, generator=generator) for name in evaluation.outputs}
    labels = torch.arange(_SAMPLES) % _CLASSES
    return Features(outputs, labels)
