"""The score of a cell: samples of its trained model are drawn, measured, shown in a picture, and recorded."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from diffsweep.diffusion import Denoiser, Sampler
from diffsweep.diffusion.guidance import Guidance
from diffsweep.evaluation.evaluate import Evaluation
from diffsweep.messages import say
from diffsweep.ranks import is_first_rank
from diffsweep.scoring.agreement import measure_agreement
from diffsweep.scoring.guidance_strength import guidance_strength
from diffsweep.scoring.measure import measure
from diffsweep.scoring.model_metrics import ModelMetric, measure_model
from diffsweep.scoring.sample_files import GRID, write_samples
from diffsweep.scoring.sampling import UNGUIDED, FeatureExtraction, Model, Sampling, draw
from diffsweep.scoring.text_metrics import TextMetric, measure_texts
from diffsweep.scoring.weights import WeightsChoice, load_weights
from diffsweep.settings import EvaluationSettings, TrainerSettings
from diffsweep.sweep.store.lease import LeaseLostError
from diffsweep.sweep.store.record import CannotWriteError, Run
from diffsweep.sweep.store.result import Result, SamplingSummary, TrainingSummary
from diffsweep.trainer import make_trainer


@dataclass(frozen=True)
class EarlierModel:
    """The model of a training as it was at a step that the training keeps.

    Attributes:
        denoiser: Which gets those weights when the training is finished.
        weights: Of which step.
    """

    denoiser: Denoiser
    weights: WeightsChoice


@dataclass(frozen=True, eq=False)
class Scoring:
    """How a cell is scored.

    Attributes:
        model: What is sampled from; the weights of the cell's training are put into it.
        sampler: How samples are drawn.
        guidance: Where the denoiser is made to aim.
        evaluation: What is measured of samples.
        model_metrics: What is measured of the model itself.
        text_metrics: What is measured of samples and the texts that they were asked for.
        settings: Which samples are drawn.
        trainer: Where they are drawn.
        weights: Which weights of the training are used.
        earlier: The same model at an earlier step, if the guidance compares with that.
    """

    model: Model
    sampler: Sampler
    guidance: Guidance
    evaluation: Evaluation
    model_metrics: Sequence[ModelMetric]
    text_metrics: Sequence[TextMetric]
    settings: EvaluationSettings
    trainer: TrainerSettings
    weights: WeightsChoice = field(default_factory=WeightsChoice)
    earlier: EarlierModel | None = None

    @property
    def guidance_while_training(self) -> Guidance:
        """What guides samples that are drawn on the way: an earlier model is known at the end only."""
        return self.guidance if self.earlier is None else UNGUIDED


def score(
    scoring: Scoring,
    run: Run,
    overrides: Sequence[str],
    seed: int | None,
    sweep: str | None = None,
    held: Callable[[], bool] = lambda: True,
) -> Result | None:
    """Draw a cell's samples with the averaged weights of its training, measure them, write picture and result.

    Args:
        scoring: How.
        run: The cell's record; its training is finished.
        overrides: What the user asked for, to be recorded.
        seed: That of the training, to be recorded; None if nothing was trained.
        sweep: Name of the sweep that the cell belongs to.
        held: Whether this process still has the right to write the result.

    Returns:
        The result; None on ranks other than the first.

    Raises:
        ValueError: if weights or data cannot be read.
    """
    cell, trained = run.cell, run.fit.result()
    assert trained is not None
    model, settings, evaluation = scoring.model, scoring.settings, scoring.evaluation
    load_weights(model.denoiser, run.fit, scoring.weights)
    if scoring.earlier is not None:
        load_weights(scoring.earlier.denoiser, run.fit, scoring.earlier.weights)
    if is_first_rank():
        cell.write_status("running", stage="sample")
    extraction = FeatureExtraction(evaluation.extractor, evaluation.outputs, GRID)
    sampling = Sampling(model, scoring.sampler, settings.seed, scoring.guidance, extraction, scoring.trainer)
    sampling.ask(settings.choice)
    sampling.text_scores = {
        metric.short: metric.ready(sampling.requests, settings.cache)
        for metric in scoring.text_metrics
        if metric.absence(sampling.requests) is None
    }
    trainer = functools.partial(make_trainer, scoring.trainer, cell.folder, logger=False)
    show = scoring.trainer.progress and is_first_rank()
    drawn = draw(sampling, trainer, settings.samples, settings.batch_size, show=show)
    if drawn is None or drawn.features is None or not is_first_rank():
        return None

    started = time.monotonic()
    cell.write_status("running", stage="evaluate")
    there = dataclasses.replace(evaluation, extractor=evaluation.extractor.to(drawn.device))
    measurement = measure(
        model.dataset,
        there,
        settings,
        drawn.features,
        drawn.broken,
        balanced="label" in sampling.requests.conditioners,
        saturated=drawn.saturated,
        show=show,
    )
    now = measurement.reference_digest
    if settings.reference == "train" and settings.reference_samples is not None:
        # The reference may be a part of the data, which has a digest of its own.
        now = model.dataset.load("train").digest()[:12]
    trained_on = str(trained.get("data_digest", now))[:12]
    if settings.reference == "train" and trained_on != now:
        change = f"the model was trained on other data ({trained_on}) than those that are there now ({now})"
        say(f"fit {run.fit.signature}: {change}")
        measurement = dataclasses.replace(measurement, note="; ".join(filter(None, (measurement.note, change))))
    of_model = measure_model(
        scoring.model_metrics,
        model.denoiser.to(drawn.device),
        model.schedule,
        model.dataset,
        conditioners=model.conditioners,
        batch_size=settings.batch_size,
        device=drawn.device,
    )
    of_model += measure_agreement(model.conditioners, drawn.features)
    of_model += measure_texts(scoring.text_metrics, sampling.text_scores, sampling.requests, drawn.features)
    strength = guidance_strength(sampling, scoring.guidance, scoring.trainer, drawn.samples)
    evaluate_seconds = drawn.extract_seconds + time.monotonic() - started
    write_samples(model.dataset.modality, drawn.samples, cell.samples_file)
    sampling.requests.write(settings.samples, cell.requests_file)
    result = Result.of(
        cell.signature,
        run.fit.signature,
        overrides,
        run.choices,
        dataclasses.replace(measurement, of_model=of_model),
        evaluate_seconds=evaluate_seconds,
        extract_seconds=drawn.extract_seconds,
        grid=cell.samples_file.name,
        sampling=SamplingSummary(
            nfe=drawn.nfe,
            nfe_requested=scoring.sampler.nfe,
            steps=scoring.sampler.steps,
            seed=settings.seed,
            seconds=drawn.seconds,
            guidance_strength=strength,
        ),
        training=TrainingSummary(
            seed=seed,
            parameters=trained["parameters"],
            call_flops=trained.get("call_flops"),
            steps=trained["steps"],
            kept_step=scoring.weights.resolved_step(trained),
            seconds=trained["seconds"],
            imported_from=trained.get("imported_from"),
            autoencoder=None if run.autoencoder is None else run.autoencoder.signature,
            autoencoder_seconds=None if run.autoencoder is None else (run.autoencoder.result() or {}).get("seconds"),
        ),
        sweep=sweep,
    )
    if not held():
        raise LeaseLostError(f"cell {cell.signature} was taken over by another process while this one slept")
    cell.write_result(result)
    # The result stands; that its status could not be told does not unmake it.
    with contextlib.suppress(CannotWriteError):
        cell.write_status("done")
    return cell.result()
