"""Scores of a training that is not over, for whoever decides whether it is worth going on.

The averaged weights of the step are scored in a copy of the model: the training does not notice. At a rung the whole
state is saved first, so that one that is stopped there goes on when it is asked for again.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, WeightAveraging
from omegaconf import DictConfig
from torch import Tensor

from diffsweep.diffusion import Sampler
from diffsweep.diffusion.guidance import Guidance, Unguided
from diffsweep.evaluation.evaluate import Evaluation
from diffsweep.evaluation.features import Features
from diffsweep.evaluation.frechet import Frechet
from diffsweep.evaluation.reference import Library, RealData, Reference
from diffsweep.runs.build import Parts
from diffsweep.training.ema import averaged
from diffsweep.training.progress import Progress
from diffsweep.training.validation import Best, Validation


class Pruned(BaseException):
    """A training was stopped because it is not worth going on; its state is saved. No error: `except Exception` lets
    it pass.
    """


@dataclass(frozen=True)
class Draft:
    """Which samples are drawn of a model that is not finished, and what is measured of them.

    Attributes:
        sampler: How they are drawn.
        guidance: Where the denoiser is made to aim.
        evaluation: What is measured.
        samples: How many, >= 2.
        batch_size: How many at a time, >= 1.
        seed: Sample seed.
    """

    sampler: Sampler
    guidance: Guidance
    evaluation: Evaluation
    samples: int
    batch_size: int
    seed: int

    @classmethod
    def like_result(cls, cfg: DictConfig, parts: Parts, most: int) -> Draft:
        """The first samples that the run's result will be made of."""
        asked = cfg.evaluation
        samples = min(most, asked.samples)
        # Only the main number is asked for.
        evaluation = dataclasses.replace(parts.evaluation, metrics=parts.evaluation.metrics[:1])
        return cls(parts.sampler, parts.guidance, evaluation, samples, asked.batch_size, asked.seed)

    @classmethod
    def of(cls, policy: Validation) -> Draft:
        """What a validation asks for."""
        evaluation = Evaluation(policy.extractor, [Frechet()])
        return cls(policy.sampler, Unguided(), evaluation, policy.samples, policy.batch_size, policy.seed)


class Scorer:
    """Scores weights by the main number of an evaluation.

    Args:
        cfg: The composed config.
        parts: What the run is made of; of its denoiser only the architecture counts.
        real: What the samples are compared with.
        draft: Which samples are drawn, and what is measured of them.

    Attributes:
        main: Name of the number.
    """

    def __init__(self, cfg: DictConfig, parts: Parts, real: RealData, draft: Draft) -> None:
        self.cfg = cfg
        self.parts = parts
        self.real = real
        self.draft = draft
        self.main = draft.evaluation.main
        self._reference: Reference | None = None

    def __call__(self, weights: Mapping[str, Tensor], trainer: Trainer) -> float:
        """The number, on the trainer's device; NaN if a sample is not finite, or what the extractor makes of it.

        Args:
            weights: Of the backbone.
            trainer: Of the training, which must not notice.
        """
        device = trainer.strategy.root_device
        evaluation = dataclasses.replace(self.draft.evaluation, extractor=self.draft.evaluation.extractor.to(device))
        with torch.random.fork_rng(), torch.no_grad(), trainer.precision_plugin.forward_context():
            drawn = self._drawn(weights, evaluation, device)
        if drawn is None:
            return math.nan
        if self._reference is None:
            size = self.draft.batch_size
            there = Library(evaluation.extractor, evaluation.outputs, Path(self.cfg.paths.cache), size, show=False)
            self._reference = there.reference(self.real)
        # Some numbers do not exist for some runs, as those by label.
        return evaluation.values(drawn, self._reference).get(evaluation.main, math.nan)

    def _drawn(self, weights: Mapping[str, Tensor], evaluation: Evaluation, device: torch.device) -> Features | None:
        parts, draft = self.parts, self.draft
        denoiser = copy.deepcopy(parts.denoiser)
        denoiser.backbone.load_state_dict(weights)
        look = {"extractor": evaluation.extractor, "outputs": evaluation.outputs}
        frozen = denoiser.requires_grad_(False)
        sampling = parts.sampling(frozen, draft.seed, draft.sampler, draft.guidance, **look).to(device)
        numbers = torch.arange(draft.samples)
        pieces = [sampling.predict_step(chunk, 0) for chunk in numbers.split(draft.batch_size)]
        labels = sampling.labels(numbers) if sampling.labelled else None
        found = Features.collect(
            (piece.outputs for piece in pieces), None if labels is None else labels.cpu(), evaluation.outputs
        )
        whole = all(bool(piece.finite.all()) for piece in pieces)
        return found if whole and all(bool(found[name].isfinite().all()) for name in evaluation.outputs) else None


@dataclass(frozen=True)
class Watch:
    """Who wants to know, and when.

    Attributes:
        rungs: Training steps after which the model is scored, increasing, >= 1.
        samples: How many samples at most, >= 2.
        report: (step, name of the metric, value; NaN for broken samples) -> whether to stop.
    """

    rungs: tuple[int, ...]
    samples: int
    report: Callable[[int, str, float], bool]


class Rungs(Callback):
    """Scores a training at its rungs.

    Args:
        watch: Who wants to know.
        scorer: Scores weights.
        averaging: Averages them.
        checkpoint: Where the state is saved.
        progress: Is told how long scoring took, which is no training time.
    """

    def __init__(
        self, watch: Watch, scorer: Scorer, averaging: WeightAveraging, checkpoint: Path, progress: Progress
    ) -> None:
        self.watch = watch
        self.scorer = scorer
        self.averaging = averaging
        self.checkpoint = checkpoint
        self.progress = progress
        self.stopped = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Killed while it was scored, or stopped there before: this rung is still to be judged.
        if trainer.global_step in self.watch.rungs:
            self._judge(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step in self.watch.rungs:
            trainer.save_checkpoint(self.checkpoint)
            self._judge(trainer, pl_module)

    def _judge(self, trainer: Trainer, module: LightningModule) -> None:
        started = time.monotonic()
        if trainer.is_global_zero:
            value = self.scorer(averaged(self.averaging, trainer, module), trainer)
            self.stopped = self.watch.report(trainer.global_step, self.scorer.main, value)
        self.stopped = trainer.strategy.broadcast(self.stopped)
        trainer.should_stop = trainer.should_stop or self.stopped
        self.progress.leave_out(time.monotonic() - started)


class Validating(Callback):
    """Scores a training every so many steps and at its end, remembers the best, and may end it.

    It must come before whatever saves checkpoints: one that is taken at a step holds the evaluation of that step.

    Args:
        policy: When, and what for.
        scorer: Scores weights.
        averaging: Averages them.
        progress: Records the number, and is told how long scoring took, which is no training time.
        steps: Length of the training.
    """

    def __init__(
        self, policy: Validation, scorer: Scorer, averaging: WeightAveraging, progress: Progress, steps: int
    ) -> None:
        self.policy = policy
        self.scorer = scorer
        self.averaging = averaging
        self.progress = progress
        self.steps = steps
        self.best = Best(policy.patience)

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
        if step % self.policy.every and step != self.steps:
            return
        started = time.monotonic()
        if trainer.is_global_zero:
            weights = averaged(self.averaging, trainer, pl_module)
            value = self.scorer(weights, trainer)
            self.best.see(value, step, weights if self.policy.keep == "best" else None)
            self.progress.note(trainer, **{self.scorer.main: value})
        trainer.should_stop = trainer.strategy.broadcast(trainer.should_stop or self.best.over)
        self.progress.leave_out(time.monotonic() - started)

    def summary(self, steps: int) -> dict[str, Any]:
        """What a finished training tells of it.

        Args:
            steps: How many it had.
        """
        return {
            "validation_metric": self.scorer.main,
            "best_value": self.best.value,
            "best_step": self.best.step,
            "kept": "last" if self.best.weights is None else "best",
            "stopped_early": steps < self.steps,
        }
