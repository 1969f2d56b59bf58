"""From the features of samples to the fields of a result: every number with its interval, and how it was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from diffsweep.evaluation.evaluate import Evaluation, recorded, settings
from diffsweep.evaluation.extractor import Extractor
from diffsweep.evaluation.features import Features
from diffsweep.evaluation.frechet import Frechet
from diffsweep.evaluation.metric import Metric
from diffsweep.evaluation.reference import Library, Reference
from diffsweep.training.likelihood import ModelMetric
from diffsweep.training.make import make

SPLITS = ("train", "test")


def make_evaluation(cfg: DictConfig) -> Evaluation:
    """What the config measures.

    Raises:
        ValueError: for values that make no extractor or no metric, or metrics that do not go with the extractor.
    """
    if cfg.evaluation.reference not in SPLITS:
        raise ValueError(f"evaluation.reference={cfg.evaluation.reference} is no split: choose {' or '.join(SPLITS)}")
    extractor: Extractor = make(cfg, "evaluation.extractor")
    metrics = _metrics(cfg)
    of_samples = [metric for metric in metrics if not isinstance(metric, ModelMetric)]
    if metrics and not of_samples:
        raise ValueError(
            f"{metrics[0].short} is measured of the model, and cells are ranked by their samples: choose a metric of "
            "samples too, as metric=[wasserstein,likelihood]"
        )
    return Evaluation(extractor, of_samples)


def make_model_metrics(cfg: DictConfig) -> list[ModelMetric]:
    """What the config measures of the model itself; errors as `make_evaluation`."""
    return [metric for metric in _metrics(cfg) if isinstance(metric, ModelMetric)]


def _metrics(cfg: DictConfig) -> list[Metric | ModelMetric]:
    asked = cfg.evaluation.get("metrics") or {}
    return [make(cfg, f"evaluation.metrics.{name}") for name, entry in asked.items() if entry]


def library(cfg: DictConfig, evaluation: Evaluation, *, show: bool = True) -> Library:
    """Where the config keeps what is known of real data."""
    asked = cfg.evaluation
    return Library(evaluation.extractor, evaluation.outputs, Path(cfg.paths.cache), asked.batch_size, show)


def known(
    cfg: DictConfig, dataset: Any, library: Library, *, balanced: bool = False
) -> tuple[Reference, Features | None]:
    """The reference, and as many samples of the other split as are asked for: what a perfect model would draw.

    None of them where that split is empty. `balanced`: as `Library.held_out`.
    """
    asked = cfg.evaluation
    other = next(split for split in SPLITS if split != asked.reference)
    reference = library.reference(dataset.load(asked.reference))
    held_out = dataset.load(other)
    if not len(held_out.x):
        return reference, None
    return reference, library.held_out(held_out, asked.samples, asked.seed, balanced=balanced)


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
    reference, held_out = known(cfg, dataset, library(cfg, evaluation, show=show), balanced=balanced)
    main, total = evaluation.main, len(drawn) + broken
    if broken:
        numbers: dict[str, Any] = {
            main: None,
            f"{main}_reason": f"{broken} of {total} samples are not finite",
            f"{main}_by": settings(evaluation.metrics[0]),
        }
    else:
        floor = {} if held_out is None else evaluation.values(held_out, reference)
        numbers = recorded(evaluation.measure(drawn, reference), floor)
        if main not in numbers:
            reason = f"there is no {main} of {total} samples{'' if balanced else ' without labels'}"
            numbers |= {main: None, f"{main}_reason": reason}
    extractor = evaluation.extractor
    return {
        "metric": main,
        **numbers,
        "evaluation_note": _note(evaluation, total, reference.n),
        "samples": total,
        "broken_samples": broken,
        "reference_split": cfg.evaluation.reference,
        "reference_samples": reference.n,
        "reference_digest": reference.digest[:12],
        "floor_samples": None if held_out is None else len(held_out),
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
