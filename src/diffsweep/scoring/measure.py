"""From the features of samples to the fields of a result: every number with its interval, and how it was measured."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from diffsweep.autoencoders.latent_dataset import LatentDataset, ReconstructedSource
from diffsweep.data.examples import Split
from diffsweep.data.modality import Modality
from diffsweep.evaluation.evaluate import Evaluation
from diffsweep.evaluation.extractor import sha256
from diffsweep.evaluation.features import Features
from diffsweep.evaluation.frechet import Frechet
from diffsweep.evaluation.metric import ExplainsAbsence, Metric
from diffsweep.evaluation.metric import settings as metric_settings
from diffsweep.evaluation.reference import Library, RealData, Reference
from diffsweep.scoring.estimate import measure_of
from diffsweep.scoring.reference_lease import alone
from diffsweep.scoring.reference_subset import reference_subset
from diffsweep.scoring.saturation import saturated_share
from diffsweep.settings import EvaluationSettings
from diffsweep.sweep.store.result import Measure, Measurement

# Real examples of which the share of saturated values is taken, and as many of them are read in one go.
_SHARE_OF, _CHUNK = 10_000, 1_000


class RealDataset(Protocol):
    """Real data in two splits, one of them the reference of samples.

    Attributes:
        modality: The kind of the data.
    """

    @property
    def modality(self) -> Modality: ...

    def load(self, split: Split) -> RealData:
        """All examples of a split. Raises ValueError if they cannot be had."""
        ...


@dataclass(frozen=True)
class Baseline:
    """What the numbers of samples are compared with: the reference, and the numbers of as many real samples.

    Attributes:
        reference: what samples are compared with.
        floor: the same numbers of as many real samples of the other split, which a perfect model would have; none
            where that split is empty.
        held_out: how many those are; None where that split is empty.
        saturated: share of the values of the reference that are at an end of their range; None for real numbers.
        reconstruction: the numbers of the real samples of `floor` after both ways through the autoencoder of a latent
            model, which a perfect model of its latents would have; none where there is no autoencoder.
    """

    reference: Reference
    floor: Mapping[str, float]
    held_out: int | None
    saturated: float | None
    reconstruction: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        dataset: RealDataset,
        evaluation: Evaluation,
        settings: EvaluationSettings,
        *,
        balanced: bool = False,
        show: bool = True,
    ) -> Baseline:
        """The baseline of an evaluation: read from the cache folder where it is there, computed and kept otherwise.

        Args:
            dataset: Of the real data.
            evaluation: With its extractor on the device to compute on.
            settings: Which samples it is for, and which split is the reference.
            balanced: As of `Library.held_out`.
            show: Whether to draw bars when standard error is a terminal.

        Raises:
            ValueError: if the data cannot be read, or do not fit the extractor.
        """
        library = Library(evaluation.extractor, evaluation.outputs, settings.cache, settings.batch_size, show, alone)
        real = reference_subset(dataset.load(settings.reference), settings.reference_samples)
        reference = library.reference(real)
        saturated = _saturated(reference, real)
        held_out = dataset.load(settings.held_out_split)
        if not len(held_out):
            return cls(reference, {}, None, saturated)

        metrics = [(metric_settings(metric), _code(metric)) for metric in evaluation.metrics]

        def numbers(real: RealData) -> Mapping[str, float]:
            """What as many of the held-out data as there are samples are worth."""

            def compute() -> dict[str, float]:
                chosen = library.held_out(real, settings.samples, settings.seed, balanced=balanced)
                return evaluation.values(chosen, reference)

            key = [real.digest(), settings.samples, settings.seed, balanced]
            return reference.keep(json.dumps(["floor", key, metrics]), compute)

        floor, reconstruction = numbers(held_out), {}
        if isinstance(dataset, LatentDataset):
            reconstruction = numbers(ReconstructedSource(dataset.load(settings.held_out_split), dataset.space))
        return cls(reference, floor, min(settings.samples, len(held_out)), saturated, reconstruction)


def _saturated(reference: Reference, real: RealData) -> float | None:
    """The share of saturated values of real data, of a fixed choice where there are very many."""

    def share() -> dict[str, float]:
        order = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))
        found = saturated_share(real.take(chosen).x for chosen in order[:_SHARE_OF].split(_CHUNK))
        return {} if found is None else {"saturated": found}

    return reference.keep("saturated", share).get("saturated")


def _code(metric: Metric) -> str:
    """Digest of the file of a metric, which may be the user's own."""
    return sha256(Path(inspect.getfile(type(metric))).read_bytes())


def measure(
    dataset: RealDataset,
    evaluation: Evaluation,
    settings: EvaluationSettings,
    drawn: Features,
    broken: int,
    *,
    balanced: bool,
    saturated: float | None = None,
    show: bool = True,
) -> Measurement:
    """What samples are worth: every number with its interval, and how it was measured.

    Args:
        dataset: Of the real data.
        evaluation: With its extractor on the device to compute on.
        settings: Which split of the data is the reference.
        drawn: Features of the samples that are finite.
        broken: How many more there were that are not. The main number is then null, with the reason beside it.
        balanced: Whether they were asked for labels in turn, so that the floor must be of as many of each.
        saturated: Share of the values of those samples that are at an end of their range; None for real numbers.
        show: Whether to draw bars when standard error is a terminal.

    Raises:
        ValueError: if the data cannot be read.
    """
    real = Baseline.of(dataset, evaluation, settings, balanced=balanced, show=show)
    main, total = evaluation.main, len(drawn) + broken
    estimates = {} if broken else evaluation.measure(drawn, real.reference)
    measures = [
        measure_of(name, estimate, real.floor.get(name), real.reconstruction.get(name))
        for name, estimate in estimates.items()
    ]
    # A number that was asked for and cannot be given is recorded with the reason.
    for metric in evaluation.metrics:
        name = evaluation.extractor.called(metric.short)
        if name not in estimates:
            reason = (
                f"{broken} of {total} samples are not finite" if broken else _absence(metric, drawn, real.reference)
            )
            measures.append(Measure(name, None, by=metric_settings(metric), reason=reason))
    extractor = evaluation.extractor
    return Measurement(
        metric=main,
        measures=measures,
        note=_note(evaluation, total, real.reference.n),
        samples=total,
        broken_samples=broken,
        saturated=saturated,
        reference_saturated=real.saturated,
        reference_split=settings.reference,
        reference_samples=real.reference.n,
        reference_digest=real.reference.digest[:12],
        floor_samples=real.held_out,
        extractor=extractor.space,
        extractor_digest=extractor.digest[:12],
        resize=extractor.resize,
        bits=dataset.modality.bits,
    )


def _absence(metric: Metric, drawn: Features, real: Reference) -> str:
    """Why a metric has no number of these samples."""
    return (
        metric.absence(drawn, real) if isinstance(metric, ExplainsAbsence) else "the metric gives none of these samples"
    )


def _note(evaluation: Evaluation, samples: int, real: int) -> str | None:
    extractor = evaluation.extractor
    few, what = min((samples, "samples"), (real, "real samples"))
    if few > extractor.dimension or not any(isinstance(metric, Frechet) for metric in evaluation.metrics):
        return None
    return (
        f"{few} {what} in {extractor.dimension} dimensions leave a covariance without full rank: "
        f"{extractor.called('fd')} is far too large then; {extractor.called('kd')} (metric kernel) has no such bias"
    )
