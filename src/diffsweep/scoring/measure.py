"""From the features of samples to the fields of a result: every number with its interval, and how it was measured."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from diffsweep.evaluation.evaluate import Evaluation, recorded
from diffsweep.evaluation.extractor import Extractor, sha256
from diffsweep.evaluation.features import Features
from diffsweep.evaluation.frechet import Frechet
from diffsweep.evaluation.metric import Metric, settings
from diffsweep.evaluation.reference import Library, Reference
from diffsweep.runs.instantiate import make
from diffsweep.scoring.model_metrics import ModelMetric

SPLITS = ("train", "test")


def make_evaluation(cfg: DictConfig) -> Evaluation:
    """What the config measures of samples; errors as `make_measures`."""
    return make_measures(cfg)[0]


def make_measures(cfg: DictConfig) -> tuple[Evaluation, list[ModelMetric]]:
    """What the config measures of samples, and of the model itself.

    Raises:
        ValueError: for values that make no extractor or no metric, or metrics that do not go with the extractor.
    """
    if cfg.evaluation.reference not in SPLITS:
        raise ValueError(f"evaluation.reference={cfg.evaluation.reference} is no split: choose {' or '.join(SPLITS)}")
    extractor: Extractor = make(cfg, "evaluation.extractor")
    asked = cfg.evaluation.get("metrics") or {}
    metrics: list[Metric | ModelMetric] = [
        make(cfg, f"evaluation.metrics.{name}") for name, entry in asked.items() if entry
    ]
    of_samples = [metric for metric in metrics if not isinstance(metric, ModelMetric)]
    if metrics and not of_samples:
        raise ValueError(
            f"{metrics[0].short} is measured of the model, and cells are ranked by their samples: choose a metric of "
            "samples too, as metric=[wasserstein,likelihood]"
        )
    return Evaluation(extractor, of_samples), [metric for metric in metrics if isinstance(metric, ModelMetric)]


@dataclass(frozen=True)
class Known:
    """What is known of real data before a sample is looked at.

    Attributes:
        reference: what samples are compared with.
        floor: the same numbers of as many real samples of the other split, which a perfect model would have; none
            where that split is empty.
        held_out: how many those are; None where that split is empty.
    """

    reference: Reference
    floor: Mapping[str, float]
    held_out: int | None

    @classmethod
    def of(
        cls, cfg: DictConfig, dataset: Any, evaluation: Evaluation, *, balanced: bool = False, show: bool = True
    ) -> Known:
        """What is kept of it, computing what is missing.

        Args:
            cfg: The composed config.
            dataset: Of the real data.
            evaluation: With its extractor on the device to compute on.
            balanced: As of `Library.held_out`.
            show: Whether to draw bars when standard error is a terminal.

        Raises:
            ValueError: if the data cannot be read, or do not fit the extractor.
        """
        asked = cfg.evaluation
        library = Library(evaluation.extractor, evaluation.outputs, Path(cfg.paths.cache), asked.batch_size, show)
        other = next(split for split in SPLITS if split != asked.reference)
        reference = library.reference(dataset.load(asked.reference))
        held_out = dataset.load(other)
        if not len(held_out.x):
            return cls(reference, {}, None)

        def floor() -> dict[str, float]:
            return evaluation.values(
                library.held_out(held_out, asked.samples, asked.seed, balanced=balanced), reference
            )

        chosen = [held_out.digest(), asked.samples, asked.seed, balanced]
        metrics = [(settings(metric), _code(metric)) for metric in evaluation.metrics]
        numbers = reference.keep(json.dumps(["floor", chosen, metrics]), floor)
        return cls(reference, numbers, min(asked.samples, len(held_out.x)))


def _code(metric: Metric) -> str:
    """Digest of the file of a metric, which may be the user's own."""
    return sha256(Path(inspect.getfile(type(metric))).read_bytes())


def measure(
    cfg: DictConfig,
    dataset: Any,
    evaluation: Evaluation,
    drawn: Features,
    broken: int,
    *,
    show: bool = True,
) -> dict[str, Any]:
    """The fields of a result that say what was measured, and how.

    Args:
        cfg: The composed config.
        dataset: Of the real data.
        evaluation: With its extractor on the device to compute on.
        drawn: Features of the samples that are finite.
        broken: How many more there were that are not. The main number is then null, with the reason beside it.
        show: Whether to draw bars when standard error is a terminal.

    Raises:
        ValueError: if the data cannot be read.
    """
    balanced = drawn.labels is not None
    real = Known.of(cfg, dataset, evaluation, balanced=balanced, show=show)
    main, total = evaluation.main, len(drawn) + broken
    if broken:
        numbers: dict[str, Any] = {
            main: None,
            f"{main}_reason": f"{broken} of {total} samples are not finite",
            f"{main}_by": settings(evaluation.metrics[0]),
        }
    else:
        numbers = recorded(evaluation.measure(drawn, real.reference), real.floor)
        if main not in numbers:
            reason = f"there is no {main} of {total} samples{'' if balanced else ' without labels'}"
            numbers |= {main: None, f"{main}_reason": reason}
    extractor = evaluation.extractor
    return {
        "metric": main,
        **numbers,
        "evaluation_note": _note(evaluation, total, real.reference.n),
        "samples": total,
        "broken_samples": broken,
        "reference_split": cfg.evaluation.reference,
        "reference_samples": real.reference.n,
        "reference_digest": real.reference.digest[:12],
        "floor_samples": real.held_out,
        "extractor": extractor.space,
        "extractor_digest": extractor.digest[:12],
        "resize": extractor.resize,
        "bits": 8 if len(dataset.stored) == 3 else None,
    }


def _note(evaluation: Evaluation, samples: int, real: int) -> str | None:
    extractor = evaluation.extractor
    few, what = min((samples, "samples"), (real, "real samples"))
    if few > extractor.dimension or not any(isinstance(metric, Frechet) for metric in evaluation.metrics):
        return None
    return (
        f"{few} {what} in {extractor.dimension} dimensions leave a covariance without full rank: "
        f"{extractor.called('fd')} is far too large then; {extractor.called('kd')} (metric kernel) has no such bias"
    )
