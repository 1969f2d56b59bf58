"""From a config to the objects of a run; every combination that makes no sense is refused here, before any training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from omegaconf import DictConfig, OmegaConf

from diffsweep.autoencoders.latent_dataset import LatentDataset
from diffsweep.conditioners import Label
from diffsweep.conditioners.conditioned import example_condition
from diffsweep.conditioners.conditioner import Verifiable
from diffsweep.data.examples import Dataset, Examples
from diffsweep.data.modality import POINTS, Modality
from diffsweep.diffusion import Denoiser, Sampler, Schedule
from diffsweep.diffusion.denoiser import Denoise
from diffsweep.diffusion.guidance import Distilled, Guidance, ReadsGuidanceScale
from diffsweep.diffusion.objective import Objective
from diffsweep.diffusion.objective_check import EXAMPLES, check_objective
from diffsweep.diffusion.sampler_check import UnsuitableSamplerError, check_sampler
from diffsweep.diffusion.spacing import NoCommonNoiseError
from diffsweep.evaluation.by_kind import ByKind
from diffsweep.evaluation.evaluate import Evaluation
from diffsweep.evaluation.extractor import Extractor
from diffsweep.evaluation.metric import Metric, NeedsSamples
from diffsweep.interop.imported import Import, Imported
from diffsweep.messages import say
from diffsweep.mistakes import BadValue, below
from diffsweep.philox import CounterGenerator
from diffsweep.ranks import is_first_rank
from diffsweep.runs import weak_model
from diffsweep.runs.autoencoder import given_state, make_dataset, make_fitting, on_one_device
from diffsweep.runs.instantiate import checked_arguments, make, make_conditioners, make_denoiser, settings_at
from diffsweep.runs.load_fit import named_model, weights_choice
from diffsweep.runs.optimizer import make_optimizer, settings_line, tried_optimizer
from diffsweep.runs.pretrained import find
from diffsweep.scoring.model_metrics import ModelMetric
from diffsweep.scoring.requests import Requests
from diffsweep.scoring.sampling import Model, Sampling
from diffsweep.scoring.score import Scoring
from diffsweep.scoring.text_metrics import TextMetric
from diffsweep.settings import EvaluationSettings, LoadingSettings, TrainerSettings, TrainingSettings
from diffsweep.trainer import make_trainer
from diffsweep.training.activation_checkpointing import check_blocks
from diffsweep.training.fit import Fitting, OptimizerFactory
from diffsweep.training.fit_autoencoder import AutoencoderStage
from diffsweep.training.learning_rate import LearningRateDecay
from diffsweep.training.validation import Validation
from diffsweep.training.weight_decay import check_decays, parameters_to_train


@dataclass(frozen=True)
class Components:
    """The objects that a config describes.

    Attributes:
        fitting: How its model is trained, or imported.
        scoring: How the trained model is scored.
        autoencoder: What makes the latents that the model works in; None if it works on the data.
    """

    fitting: Fitting | Import
    scoring: Scoring
    autoencoder: AutoencoderStage | None = None

    @classmethod
    def of(cls, cfg: DictConfig) -> Components:
        """Build everything and try what can be tried without data.

        Raises:
            ValueError: for a bad value, or choices that do not go together, saying which to change.
        """
        training, trainer, settings = training_settings(cfg), trainer_settings(cfg), evaluation_settings(cfg)
        dataset = make_dataset(cfg)
        schedule: Schedule = make(cfg, "schedule")
        diffuser: Objective | Imported = make(cfg, "diffuser", **_teacher(cfg, dataset))
        sampler: Sampler = make(cfg, "sampler")
        _check_kind(dataset, training)
        if isinstance(dataset, LatentDataset) and training.flip:
            rule = "mirrors images, and latents are written once: set autoencoder.training.flip, or leave it out"
            raise BadValue("training.flip", True, rule)
        torch.manual_seed(cfg.seed)
        denoiser = make_denoiser(cfg, dataset, schedule, diffuser, named_model(cfg, "backbone.frozen"))
        model = Model(denoiser, schedule, dataset, make_conditioners(cfg))
        _check_readable(model)
        Requests(model.conditioners, dataset, settings.choice)
        if isinstance(diffuser, Objective):
            if trainer.randomness == "device":
                _check_counter(diffuser, tuple(dataset.shape))
            _warn(
                check_objective(
                    diffuser, denoiser, tuple(dataset.shape), example_condition(model.conditioners, EXAMPLES)
                )
            )
        try:
            _warn(check_sampler(sampler, schedule))
        except NoCommonNoiseError as error:
            raise ValueError(f"{error} (schedule {settings_line(cfg.schedule)})") from error
        if trainer.activation_checkpointing:
            check_blocks(denoiser.backbone)
        imported = isinstance(diffuser, Imported)
        earlier = weak_model.earlier_self(cfg, model, None if imported else training)
        guidance = make_guidance(cfg, model, sampler, None if earlier is None else earlier.denoiser)
        optimizer = _make_optimizer(cfg, denoiser, training, fused=trainer.fused)
        make_trainer(trainer, Path(), logger=False)
        evaluation, model_metrics, text_metrics = make_measures(cfg, dataset)
        _check_extractor(evaluation.extractor, dataset)
        for metric in model_metrics:
            metric.check(dataset, diffuser, denoiser)
        validation = _validation(cfg, schedule, dataset)
        weights = weights_choice(cfg)
        with below("weights"):
            best = validation is not None and validation.keep == "best" and not imported
            kept = (None, ()) if imported else (training.averages, training.kept_steps)
            weights.check(*kept, training.steps, best=best)
        if earlier is not None:
            weak_model.check(earlier, training, weights)
        scoring = Scoring(
            model, sampler, guidance, evaluation, model_metrics, text_metrics, settings, trainer, weights, earlier
        )
        stage = None
        if isinstance(dataset, LatentDataset):
            stage = AutoencoderStage(
                dataset,
                make_fitting(cfg, dataset),
                given_state(dataset),
                evaluation,
                settings,
                on_one_device(trainer),
                for_training=not imported,
            )
        if isinstance(diffuser, Imported):
            return cls(_importing(cfg, denoiser, diffuser), scoring, stage)
        return cls(Fitting(diffuser, optimizer, training, scoring, validation), scoring, stage)


def trainer_settings(cfg: DictConfig) -> TrainerSettings:
    """Where and how a run of the config computes. Raises ValueError for a bad value."""
    given = settings_at(TrainerSettings, cfg, "trainer")
    # Runs that were recorded before there was this key have the defaults, which change no result.
    loading = checked_arguments(LoadingSettings, given.pop("loading", {}), "trainer.loading")
    return TrainerSettings(**given, loading=LoadingSettings(**loading))


def training_settings(cfg: DictConfig) -> TrainingSettings:
    """How the model of the config is trained. Raises ValueError for a bad value."""
    seed = int(cfg.seed) if isinstance(cfg.seed, float) and cfg.seed.is_integer() else cfg.seed
    given = {"ema_decay": cfg.ema.decay, "seed": seed}
    if OmegaConf.is_dict(cfg.training.decay):
        given["decay"] = LearningRateDecay(make(cfg, "training.decay"), cfg.training.steps)
    return TrainingSettings(**settings_at(TrainingSettings, cfg, "training", *given), **given)


def evaluation_settings(cfg: DictConfig) -> EvaluationSettings:
    """Which samples an evaluation of the config draws. Raises ValueError for a bad value."""
    values = {key: cfg.evaluation[key] for key in ("samples", "batch_size", "seed", "reference")}
    # Runs of version 0.1 have no such keys.
    values["reference_samples"] = cfg.evaluation.get("reference_samples")
    values["prompts"] = cfg.evaluation.get("prompts")
    if OmegaConf.is_list(values["prompts"]):
        values["prompts"] = OmegaConf.to_container(values["prompts"])
    typed = checked_arguments(EvaluationSettings, values, "evaluation", frozenset({"cache"}))
    return EvaluationSettings(**typed, cache=Path(cfg.paths.cache))


class Data(Protocol):
    """What of a dataset decides how it is measured.

    Attributes:
        modality: its kind.
        stored: shape of one stored example.
    """

    @property
    def modality(self) -> Modality: ...

    @property
    def stored(self) -> tuple[int, ...]: ...


def make_evaluation(cfg: DictConfig, data: Data) -> Evaluation:
    """What the config measures of samples; errors as `make_measures`."""
    return make_measures(cfg, data).evaluation


class Measures(NamedTuple):
    """What a config measures: of samples, of the model itself, of samples and the texts that they were asked for."""

    evaluation: Evaluation
    of_model: list[ModelMetric]
    of_texts: list[TextMetric]


def make_measures(cfg: DictConfig, data: Data) -> Measures:
    """What the config measures of samples of such data, of the model itself, and of samples beside their texts.

    Raises:
        ValueError: for values that make no extractor or no metric, or metrics that do not go with the extractor.
    """
    given: Extractor | ByKind = make(cfg, "evaluation.extractor")
    extractor = _extractor(given, cfg, data)
    entries = cfg.evaluation.get("metrics") or {}
    metrics: list[Metric | ModelMetric | TextMetric] = [
        make(cfg, f"evaluation.metrics.{name}") for name, entry in entries.items() if entry
    ]
    of_model = [metric for metric in metrics if isinstance(metric, ModelMetric)]
    of_texts = [metric for metric in metrics if isinstance(metric, TextMetric)]
    of_samples = [metric for metric in metrics if not isinstance(metric, (ModelMetric, TextMetric))]
    if isinstance(given, ByKind) and not of_samples:
        of_samples = list(given.metrics(data.modality.name))
    if metrics and not of_samples:
        what, first = "of the model" if of_model else "beside others", next(iter(entries))
        raise ValueError(
            f"{metrics[0].short} is measured {what}, and cells are ranked by their samples: choose a metric of "
            f"samples too, as metric=[{'wasserstein' if data.modality == POINTS else 'frechet'},{first}]"
        )
    _check_samples(extractor, of_samples, cfg.evaluation.samples)
    return Measures(Evaluation(extractor, of_samples), of_model, of_texts)


def _check_samples(extractor: Extractor, metrics: Sequence[Metric], samples: object) -> None:
    """Refuse too few samples for the metric that ranks cells; of another metric, say that it will have no number."""
    for place, metric in enumerate(metrics):
        least = metric.least_samples(extractor.dimension) if isinstance(metric, NeedsSamples) else 0
        if isinstance(samples, int) and samples < least:
            text = (
                f"evaluation.samples={samples} is too few for {extractor.called(metric.short)}, which needs {least} in "
                f"the {extractor.dimension} dimensions of extractor {extractor.space}"
            )
            if place == 0:
                raise ValueError(f"{text}: take more samples, or another metric first")
            say(f"careful: {text}: it will have no number")


def _teacher(cfg: DictConfig, dataset: Dataset) -> dict[str, Denoiser]:
    """The finished fit that ``diffuser.teacher`` names, if it does, tried on two examples."""
    teacher = named_model(cfg, "diffuser.teacher")
    if teacher is None:
        return {}
    try:
        condition = example_condition(make_conditioners(cfg), 2)
        teacher(torch.zeros(2, *dataset.shape), teacher.schedule.level(0.5), condition)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"diffuser.teacher={cfg.diffuser.teacher}: {error}") from error
    return {"teacher": teacher}


def make_guidance(cfg: DictConfig, model: Model, sampler: Sampler, earlier: Denoise | None = None) -> Guidance:
    """The guidance of a config, tried on two examples; its key ``weak`` names a finished fit, or `earlier`."""
    weak: dict[str, Denoise | None] = {}
    if "weak" in cfg.guidance:
        weak["weak"] = weak_model.weak_fit(cfg) if cfg.guidance.weak != weak_model.SELF else earlier
    guidance: Guidance = make(cfg, "guidance", **weak)
    _check_comparison(guidance, model, trained=cfg.get("pretrained") is None)
    try:
        # The cleanest level before clean data: pure noise would not ask a classifier.
        level = sampler.levels(model.schedule)[-2]
        sampling = Sampling(model, sampler, 0, guidance)
        condition = example_condition(sampling.requests.conditioners, 2)
        sampling.guided(torch.zeros(2, *model.dataset.shape), level, condition)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"this guidance does not go with this model and dataset={model.dataset.name}: {error}"
        ) from error
    return guidance


def _check_comparison(guidance: Guidance, model: Model, *, trained: bool) -> None:
    """Refuse a guidance that compares with no condition for a model that has none, or that tells a scale in vain."""
    network = model.denoiser.backbone
    reads_scale = isinstance(network, ReadsGuidanceScale) and network.reads_guidance_scale
    if isinstance(guidance, Distilled) and not reads_scale:
        raise ValueError(
            "guidance=distilled tells the network a scale, and this one was not distilled from guidance: choose "
            "guidance=cfg, or none"
        )
    if not guidance.compares_absent:
        return
    compares = "this guidance compares a model's answers with and without a condition"
    if not model.conditioners:
        raise ValueError(f"{compares}, and this model has none: choose condition=label, or guidance=none")
    always = next((name for name, one in model.conditioners.items() if one.drop == 0), None)
    if trained and always is not None:
        raise ValueError(
            f"{compares}, but condition.{always}.drop=0: set condition.{always}.drop=0.1, or guidance=none"
        )


def _check_readable(model: Model) -> None:
    """Refuse a condition that the data cannot have, before they are read."""
    for name, one in model.conditioners.items():
        if isinstance(one, Label) and one.classes != model.dataset.classes:
            raise ValueError(
                f"condition.{name}.classes={one.classes} must be {model.dataset.classes}, the number of labels of "
                f"dataset={model.dataset.name}"
            )
        if isinstance(one, Verifiable) and isinstance(model.dataset, LatentDataset):
            raise ValueError(
                f"condition={name} has the size of the images, and this model works in latents: leave it out, or "
                "choose autoencoder=none"
            )
    stored = torch.zeros(2, *model.dataset.stored, dtype=model.dataset.modality.dtype)
    labels = torch.zeros(2, dtype=torch.int64) if model.dataset.classes else None
    for name, one in model.conditioners.items():
        try:
            found = one.read(Examples(stored, labels)).value.shape
        except ValueError:
            if model.dataset.only_labels:
                raise
            # What only the data themselves have, as a number of each example: read before anything is trained.
            continue
        if found != one.blank(2).value.shape:
            raise ValueError(
                f"condition={name} does not go with dataset={model.dataset.name}, whose examples are stored in another "
                f"shape, {tuple(model.dataset.stored)}, than networks see: leave it out"
            )


def _warn(line: str | None) -> None:
    if line is not None and is_first_rank():
        say(line)


def _extractor(given: Extractor | ByKind, cfg: DictConfig, data: Data) -> Extractor:
    if isinstance(given, ByKind):
        modality = data.modality
        return given.extractor(modality.name, tuple(data.stored), cfg.paths.weights, modality.sample_rate)
    return given


def _importing(cfg: DictConfig, denoiser: Denoiser, diffuser: Imported) -> Import:
    named, runs = cfg.get("pretrained"), cfg.paths.runs
    return Import(denoiser, diffuser.weights, str(named), lambda: find(named, runs).content())


def _validation(cfg: DictConfig, schedule: Schedule, dataset: Dataset) -> Validation | None:
    if not cfg.get("validation"):
        return None
    made: Validation = make(cfg, "validation")
    validation = dataclasses.replace(made, extractor=_extractor(made.extractor, cfg, dataset))
    try:
        _warn(check_sampler(validation.sampler, schedule, "validation.sampler"))
    except UnsuitableSamplerError:
        raise
    except ValueError as error:
        raise ValueError(f"validation.sampler: {error}") from error
    _check_extractor(validation.extractor, dataset)
    return validation


def _check_counter(objective: Objective, shape: tuple[int, ...]) -> None:
    """Refuse a diffuser of somebody's own that asks torch for a batch's randomness instead of the given generator."""
    try:
        objective.draw((2, *shape), CounterGenerator(0, "step", torch.arange(2)))
    except TypeError as error:
        raise ValueError(
            f"trainer.randomness=device does not go with diffuser={type(objective).__name__}, which draws with torch's "
            "generators: use rand and randn of diffsweep.diffusion.generators there, or set trainer.randomness=host"
        ) from error


def _make_optimizer(
    cfg: DictConfig, denoiser: Denoiser, training: TrainingSettings, *, fused: bool
) -> OptimizerFactory:
    optimizer = make_optimizer(cfg, "optimizer", fused=fused)
    made_of_all = tried_optimizer(cfg, "optimizer", optimizer, denoiser.parameters())
    if training.weight_decay != "all":
        check_decays(made_of_all, training.weight_decay)
        tried_optimizer(cfg, "optimizer", optimizer, parameters_to_train(denoiser, training.weight_decay))
    return optimizer


def _check_kind(dataset: Dataset, training: TrainingSettings) -> None:
    """Refuse examples that their kind cannot have, and what cannot be done with it."""
    modality = dataset.modality
    try:
        modality.check(dataset.stored)
    except ValueError as error:
        raise ValueError(f"dataset={dataset.name}: {error}") from error
    if training.flip and not modality.mirrors:
        raise ValueError(
            f"training.flip=true mirrors images, and dataset={dataset.name} has {modality.name}, which have no left "
            "and right: leave it out"
        )


def _check_extractor(extractor: Extractor, dataset: Dataset) -> None:
    try:
        extractor(torch.zeros(2, *dataset.stored, dtype=dataset.modality.dtype))
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"extractor {extractor.space} does not take dataset={dataset.name} of shape {dataset.stored} "
            f"({str(error).splitlines()[0]}): leave extractor out, and one that fits is chosen"
        ) from error
