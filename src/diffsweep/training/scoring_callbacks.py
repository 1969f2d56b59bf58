"""Scores of a training while it goes on, which may end it early: for a search that prunes, and for validation.

The averaged weights of the step are scored in a copy of the model, so that the training does not notice. Before a
search is asked whether to go on, the whole state is saved: a training that is stopped there can be resumed.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from diffsweep.diffusion import Sampler
from diffsweep.diffusion.guidance import Guidance, Unguided
from diffsweep.evaluation.evaluate import Evaluation
from diffsweep.evaluation.features import Features
from diffsweep.evaluation.frechet import Frechet
from diffsweep.evaluation.reference import Library, RealData, Reference
from diffsweep.scoring.reference_lease import alone
from diffsweep.scoring.sampling import FeatureExtraction, Model, Sampling
from diffsweep.scoring.score import Scoring
from diffsweep.settings import NO_CHOICE, SampleChoice, TrainerSettings
from diffsweep.training.ema import Averaging
from diffsweep.training.progress import Progress
from diffsweep.training.validation import Best, Validation


class TrainingPruned(BaseException):
    """A training was stopped because it is not worth going on; its state is saved. No error: `except Exception` lets
    it pass.
    """


@dataclass(frozen=True, eq=False)
class IntermediateEvaluation:
    """Which samples are drawn of a model while it is trained, and what is measured of them.

    Attributes:
        sampler: How they are drawn.
        guidance: Where the denoiser is made to aim.
        evaluation: What is measured; only its main number is used.
        samples: How many, >= 2.
        batch_size: How many at a time, >= 1.
        seed: Sample seed.
        cache: Folder of what is computed of real data.
        trainer: Where noise is drawn, and how images lie in memory.
        choice: What they are asked for in the place of what follows from their numbers.
    """

    sampler: Sampler
    guidance: Guidance
    evaluation: Evaluation
    samples: int
    batch_size: int
    seed: int
    cache: Path
    trainer: TrainerSettings
    choice: SampleChoice = NO_CHOICE

    @classmethod
    def like_result(cls, scoring: Scoring, most: int) -> IntermediateEvaluation:
        """The main number of the first samples, at most so many, that the run's result will be made of."""
        settings = scoring.settings
        return cls(
            scoring.sampler,
            scoring.guidance_while_training,
            dataclasses.replace(scoring.evaluation, metrics=scoring.evaluation.metrics[:1]),
            samples=min(most, settings.samples),
            batch_size=settings.batch_size,
            seed=settings.seed,
            cache=settings.cache,
            trainer=scoring.trainer.uncompiled(),
            choice=settings.choice,
        )

    @classmethod
    def of(cls, validation: Validation, cache: Path, trainer: TrainerSettings) -> IntermediateEvaluation:
        """What a validation asks for.

        A prompt has no part in it: which weights are kept belongs to the training, which prompts must not change.
        """
        return cls(
            validation.sampler,
            Unguided(),
            Evaluation(validation.extractor, [Frechet()]),
            samples=validation.samples,
            batch_size=validation.batch_size,
            seed=validation.seed,
            cache=cache,
            trainer=trainer.uncompiled(),
        )


class WeightsEvaluator:
    """Measures weights by the main number of an evaluation.

    Args:
        model: Of its denoiser only the architecture counts.
        real: What the samples are compared with.
        evaluation: Which samples are drawn, and what is measured of them.

    Attributes:
        metric: Name of the number.
    """

    def __init__(self, model: Model, real: RealData, evaluation: IntermediateEvaluation) -> None:
        self.model = model
        self.real = real
        self.settings = evaluation
        self.metric = evaluation.evaluation.main
        self._reference: Reference | None = None

    def __call__(self, weights: Mapping[str, Tensor], trainer: Trainer) -> float:
        """The number, on the trainer's device; NaN if a sample is not finite, or what the extractor makes of it.

        Args:
            weights: Of the backbone.
            trainer: Of the training, which must not notice.
        """
        device, evaluation = trainer.strategy.root_device, self.settings.evaluation
        evaluation = dataclasses.replace(evaluation, extractor=evaluation.extractor.to(device))
        with torch.random.fork_rng(), torch.no_grad(), trainer.precision_plugin.forward_context():
            features = self._features(weights, evaluation, device)
        if features is None:
            return math.nan
        if self._reference is None:
            settings = self.settings
            library = Library(
                evaluation.extractor, evaluation.outputs, settings.cache, settings.batch_size, show=False, alone=alone
            )
            self._reference = library.reference(self.real)
        # Some numbers do not exist for some runs, as those by label.
        return evaluation.values(features, self._reference).get(evaluation.main, math.nan)

    def _features(self, weights: Mapping[str, Tensor], evaluation: Evaluation, device: torch.device) -> Features | None:
        """Features of samples drawn with the weights; None if any is not finite."""
        settings = self.settings
        extraction = FeatureExtraction(evaluation.extractor, evaluation.outputs)
        model = self.model.frozen_copy(weights)
        sampling = Sampling(model, settings.sampler, settings.seed, settings.guidance, extraction, settings.trainer).to(
            device
        )
        sampling.ask(settings.choice)
        numbers = torch.arange(settings.samples).split(settings.batch_size)
        batches = [sampling.predict_step(chunk, 0) for chunk in numbers]
        outputs = (batch.outputs for batch in batches)
        features = Features.collect(outputs, sampling.requests.classes(settings.samples), evaluation.outputs)
        finite = all(bool(batch.finite.all()) for batch in batches)
        return features if finite and all(bool(features[name].isfinite().all()) for name in features.outputs) else None


@dataclass(frozen=True)
class PruningPolicy:
    """When a training is scored for a search, and whom the score is reported to.

    Attributes:
        steps: Training steps after which the model is scored, increasing, >= 1.
        samples: How many samples at most, >= 2.
        report: (step, name of the metric, value; NaN for broken samples) -> whether to stop.
    """

    steps: tuple[int, ...]
    samples: int
    report: Callable[[int, str, float], bool]


class PruningCallback(Callback):
    """Scores a training at the steps of a pruning policy, and stops it where that says so.

    Args:
        policy: When, and who decides.
        evaluator: Measures weights.
        averaging: Averages them.
        checkpoint: Where the state is saved.
        progress: Is told how long scoring took, which is no training time.
    """

    def __init__(
        self,
        policy: PruningPolicy,
        evaluator: WeightsEvaluator,
        averaging: Averaging,
        checkpoint: Path,
        progress: Progress,
    ) -> None:
        self.policy = policy
        self.evaluator = evaluator
        self.averaging = averaging
        self.checkpoint = checkpoint
        self.progress = progress
        self.stopped = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Killed while it was scored, or stopped there before: this step is still to be judged.
        if trainer.global_step in self.policy.steps:
            self._judge(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step in self.policy.steps:
            trainer.save_checkpoint(self.checkpoint)
            self._judge(trainer, pl_module)

    def _judge(self, trainer: Trainer, module: LightningModule) -> None:
        started = time.monotonic()
        if trainer.is_global_zero:
            value = self.evaluator(self.averaging.backbone(module), trainer)
            self.stopped = self.policy.report(trainer.global_step, self.evaluator.metric, value)
        self.stopped = trainer.strategy.broadcast(self.stopped)
        trainer.should_stop = trainer.should_stop or self.stopped
        self.progress.leave_out(time.monotonic() - started)


class ValidationCallback(Callback):
    """Scores a training every so many steps and at its end, remembers the best, and may end it.

    It must come before whatever saves checkpoints: one that is taken at a step holds the evaluation of that step.

    Args:
        validation: When, and what for.
        evaluator: Measures weights.
        averaging: Averages them.
        progress: Records the number, and is told how long scoring took, which is no training time.
        steps: Length of the training.
    """

    def __init__(
        self,
        validation: Validation,
        evaluator: WeightsEvaluator,
        averaging: Averaging,
        progress: Progress,
        steps: int,
    ) -> None:
        self.validation = validation
        self.evaluator = evaluator
        self.averaging = averaging
        self.progress = progress
        self.steps = steps
        self.best = Best(validation.patience)

    @property
    def state_key(self) -> str:
        """The name of its state in checkpoints, where version 0.1 wrote it too."""
        return "Validating"

    def state_dict(self) -> dict[str, Any]:
        return self.best.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best.load_state_dict(state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Killed after its last evaluation, before it could say that it is done.
        trainer.should_stop = trainer.should_stop or self.best.over

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step % self.validation.every and step != self.steps:
            return
        started = time.monotonic()
        if trainer.is_global_zero:
            weights = self.averaging.backbone(pl_module)
            value = self.evaluator(weights, trainer)
            self.best.see(value, step, weights if self.validation.keep == "best" else None)
            self.progress.note(trainer, **{self.evaluator.metric: value})
        trainer.should_stop = trainer.strategy.broadcast(trainer.should_stop or self.best.over)
        self.progress.leave_out(time.monotonic() - started)

    def summary(self, steps: int) -> dict[str, Any]:
        """What a finished training tells of it.

        Args:
            steps: How many it had.
        """
        return {
            "validation_metric": self.evaluator.metric,
            "best_value": self.best.value,
            "best_step": self.best.step,
            "kept": "last" if self.best.weights is None else "best",
            "stopped_early": steps < self.steps,
        }
