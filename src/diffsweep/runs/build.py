"""From a config to the objects of a run; every combination that makes no sense is refused here, before any training."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from diffsweep.diffusion import Denoiser, Sampler, Schedule
from diffsweep.diffusion.guidance import Guidance, Unguided
from diffsweep.diffusion.objective import Objective
from diffsweep.evaluation.evaluate import Evaluation
from diffsweep.evaluation.extractor import Extractor
from diffsweep.runs.instantiate import make, make_denoiser
from diffsweep.runs.load_fit import finished
from diffsweep.scoring.measure import make_measures
from diffsweep.scoring.model_metrics import ModelMetric
from diffsweep.scoring.sampling import Sampling
from diffsweep.trainer import make_trainer
from diffsweep.training.checkpoint import Checkpoints
from diffsweep.training.ema import ema
from diffsweep.training.module import Recipe
from diffsweep.training.validation import Validation


@dataclass(frozen=True)
class Parts:
    """What a run is made of."""

    dataset: Any
    denoiser: Denoiser
    diffuser: Objective
    sampler: Sampler
    guidance: Guidance
    schedule: Schedule
    evaluation: Evaluation
    model_metrics: list[ModelMetric]
    recipe: Recipe
    validation: Validation | None
    conditional: bool

    @classmethod
    def of(cls, cfg: DictConfig) -> Parts:
        """Build everything and try what can be tried without data.

        Raises:
            ValueError: for a bad value, or choices that do not go together, saying which to change.
        """
        _whole(cfg, "seed", -math.inf)
        _whole(cfg, "evaluation.seed", -math.inf)
        for key in ("training.batch_size", "evaluation.batch_size", "trainer.log_every"):
            _whole(cfg, key, 1)
        _whole(cfg, "evaluation.samples", 2)
        if cfg.trainer.threads is not None:
            _whole(cfg, "trainer.threads", 1)
        for key in ("training.flip", "trainer.compile", "trainer.progress"):
            if not isinstance(OmegaConf.select(cfg, key), bool):
                raise ValueError(f"{key}={OmegaConf.select(cfg, key)} must be true or false")
        training = cfg.training
        if not 0 <= training.drop_labels < 1:
            raise ValueError(f"training.drop_labels={training.drop_labels} must be at least 0 and below 1")
        recipe = Recipe(training.steps, training.warmup, training.decay, training.clip, cfg.seed)
        dataset = make(cfg, "dataset")
        schedule: Schedule = make(cfg, "schedule")
        diffuser: Objective = make(cfg, "diffuser", **_teacher(cfg, dataset))
        sampler: Sampler = make(cfg, "sampler")
        torch.manual_seed(cfg.seed)
        if cfg.backbone.classes not in (0, dataset.classes):
            raise ValueError(
                f"backbone.classes={cfg.backbone.classes} must be 0 (the model is not told labels) or "
                f"{dataset.classes}, the number of labels of dataset={dataset.name}"
            )
        denoiser = make_denoiser(cfg, dataset, schedule, diffuser)
        _try_objective(cfg, diffuser, denoiser, dataset)
        sampler.check(schedule)
        guidance = make_guidance(cfg, denoiser, sampler, schedule, dataset)
        _try_optimizer(cfg, denoiser)
        ema(cfg.ema.decay)
        Checkpoints(Path(), cfg.trainer.checkpoint_seconds)
        make_trainer(cfg, Path(), logger=False)
        evaluation, model_metrics = make_measures(cfg)
        _fits(evaluation.extractor, dataset)
        for metric in model_metrics:
            metric.check(dataset, diffuser, denoiser)
        validation = _validation(cfg, schedule, dataset)
        return cls(
            dataset,
            denoiser,
            diffuser,
            sampler,
            guidance,
            schedule,
            evaluation,
            model_metrics,
            recipe,
            validation,
            conditional=bool(cfg.backbone.classes),
        )

    def sampling(
        self,
        denoiser: Denoiser,
        seed: int,
        sampler: Sampler | None = None,
        guidance: Guidance | None = None,
        **look: Any,
    ) -> Sampling:
        """What draws numbered samples from a model, with the sampler and guidance of this run unless others are given.

        Args:
            denoiser: The model; it is put into evaluation mode.
            seed: Sample seed.
            sampler: How it is integrated back.
            guidance: Where it is made to aim.
            look: ``extractor``, ``outputs`` and ``shown`` of `Sampling`.
        """
        return Sampling(
            denoiser.eval(),
            sampler or self.sampler,
            self.schedule,
            self.decode,
            tuple(self.dataset.shape),
            self.dataset.classes,
            seed,
            guidance or self.guidance,
            conditional=self.conditional,
            **look,
        )

    @property
    def decode(self) -> Callable[[Tensor], Tensor]:
        """From what the network sees to stored data, as [-1, 1] to uint8."""
        return functools.partial(self.dataset.decode, like=_stored_type(self.dataset))


def _whole(cfg: DictConfig, key: str, least: float) -> None:
    value = OmegaConf.select(cfg, key)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{key}={value} must be a whole number{'' if math.isinf(least) else f', {least} or more'}")


def _teacher(cfg: DictConfig, dataset: Any) -> dict[str, Denoiser]:
    """The finished fit that ``diffuser.teacher`` names, if it does, tried on two examples."""
    named = cfg.diffuser.get("teacher")
    if named is None:
        return {}
    try:
        teacher = finished(cfg.paths.runs, named)
        labels = torch.zeros(2, dtype=torch.int64) if cfg.backbone.classes else None
        teacher(torch.zeros(2, *dataset.shape), teacher.schedule.level(0.5), labels)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"diffuser.teacher={named}: {error}") from error
    return {"teacher": teacher}


def _try_objective(cfg: DictConfig, diffuser: Objective, denoiser: Denoiser, dataset: Any) -> None:
    # A copy, for what it remembers of a batch must not be of this one.
    objective, x0 = copy.deepcopy(diffuser), torch.zeros(2, *dataset.shape)
    labels = torch.zeros(2, dtype=torch.int64) if cfg.backbone.classes else None
    u, eps = objective.draw((2, *dataset.shape), torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = objective.regress(denoiser, x0, u, eps, labels)
    if loss.shape != (2,):
        raise ValueError(
            f"diffuser={type(diffuser).__name__} gives losses of shape {tuple(loss.shape)} for 2 examples: its regress "
            "must give one number per example, (2,)"
        )


def make_guidance(cfg: DictConfig, denoiser: Denoiser, sampler: Sampler, schedule: Schedule, dataset: Any) -> Guidance:
    """The guidance, tried on two examples; a key ``weak`` names a finished fit, ``classes`` asks for dropped labels."""
    asked = cfg.guidance
    try:
        weak = {"weak": finished(cfg.paths.runs, asked.weak)} if "weak" in asked else {}
    except ValueError as error:
        raise ValueError(f"guidance.weak={asked.weak}: {error}") from error
    guidance: Guidance = make(cfg, "guidance", **weak)
    if "classes" in asked and OmegaConf.select(cfg, "training.drop_labels") == 0:
        raise ValueError(
            "this guidance compares a model's answers with and without labels, but training.drop_labels=0: "
            "set training.drop_labels=0.1, or guidance=none"
        )
    if isinstance(guidance, Unguided):
        return guidance
    conditional = bool(cfg.backbone.classes)
    sampling = Sampling(
        denoiser,
        sampler,
        schedule,
        dataset.decode,
        dataset.shape,
        dataset.classes,
        0,
        guidance,
        conditional=conditional,
    )
    try:
        # The cleanest level before clean data: pure noise would not ask a classifier.
        sampling.guided(torch.zeros(2, *dataset.shape), sampler.levels(schedule)[-2], torch.zeros(2, dtype=torch.int64))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"this guidance does not go with this model and dataset={dataset.name}: {error}") from error
    return guidance


def _validation(cfg: DictConfig, schedule: Schedule, dataset: Any) -> Validation | None:
    if not cfg.get("validation"):
        return None
    validation: Validation = make(cfg, "validation")
    try:
        validation.sampler.check(schedule)
    except ValueError as error:
        raise ValueError(f"validation.sampler: {error}") from error
    _fits(validation.extractor, dataset)
    return validation


def _try_optimizer(cfg: DictConfig, denoiser: Denoiser) -> None:
    try:
        make(cfg, "optimizer")(denoiser.parameters())
    except (TypeError, ValueError) as error:
        given = " ".join(f"{key}={value}" for key, value in cfg.optimizer.items() if not str(key).startswith("_"))
        raise ValueError(f"optimizer {given}: {error}") from error


def _stored_type(dataset: Any) -> torch.dtype:
    return torch.uint8 if len(dataset.stored) == 3 else torch.float32


def _fits(extractor: Extractor, dataset: Any) -> None:
    try:
        extractor(torch.zeros(2, *dataset.stored, dtype=_stored_type(dataset)))
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"extractor {extractor.space} does not take dataset={dataset.name} of shape {dataset.stored} "
            f"({str(error).splitlines()[0]}): choose extractor={dataset.name}, or extractor=efficientnet for images"
        ) from error
