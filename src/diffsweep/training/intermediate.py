"""Scores of a training that is not over, for whoever decides whether it is worth going on.

At a rung the whole state is saved first, and the averaged weights are scored as they lie in that file, in a copy of
the model: the training does not notice, and one that is stopped at a rung goes on from there when it is asked for
again.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig

from diffsweep.evaluation.features import Features
from diffsweep.training.measure import library
from diffsweep.training.parts import Parts
from diffsweep.training.progress import Progress
from diffsweep.training.sample import Sampling


class Pruned(BaseException):
    """A training was stopped because it is not worth going on; its state is saved. No error: `except Exception` lets
    it pass.
    """


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
        cfg: The composed config.
        parts: What the run is made of.
        real: The training data.
        checkpoint: Where the state is saved.
        progress: Is told how long scoring took, which is no training time.
    """

    def __init__(
        self, watch: Watch, cfg: DictConfig, parts: Parts, real: Any, checkpoint: Path, progress: Progress
    ) -> None:
        self.watch = watch
        self.cfg = cfg
        self.parts = parts
        self.real = real
        self.checkpoint = checkpoint
        self.progress = progress
        self.stopped = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Killed while it was scored, or stopped there before: this rung is still to be judged.
        if trainer.global_step in self.watch.rungs:
            self._judge(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step in self.watch.rungs:
            trainer.save_checkpoint(self.checkpoint)
            self._judge(trainer)

    def _judge(self, trainer: Trainer) -> None:
        started = time.monotonic()
        if trainer.is_global_zero:
            with torch.random.fork_rng():
                value = self._score(trainer)
            self.stopped = self.watch.report(trainer.global_step, self.parts.evaluation.main, value)
        self.stopped = trainer.strategy.broadcast(self.stopped)
        trainer.should_stop = trainer.should_stop or self.stopped
        self.progress.leave_out(time.monotonic() - started)

    def _score(self, trainer: Trainer) -> float:
        asked, parts = self.cfg.evaluation, self.parts
        device = trainer.strategy.root_device
        evaluation = dataclasses.replace(parts.evaluation, extractor=parts.evaluation.extractor.to(device))
        sampling = Sampling(
            _averaged(self.checkpoint, parts),
            parts.sampler,
            parts.schedule,
            parts.decode,
            tuple(parts.dataset.shape),
            parts.dataset.classes,
            asked.seed,
            parts.guidance,
            conditional=bool(self.cfg.backbone.classes),
            extractor=evaluation.extractor,
            outputs=evaluation.outputs,
        ).to(device)
        numbers = torch.arange(min(self.watch.samples, asked.samples))
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            pieces = [sampling.predict_step(chunk, 0) for chunk in numbers.split(asked.batch_size)]
        if not all(bool(piece.finite.all()) for piece in pieces):
            return float("nan")
        drawn = Features.collect((piece.outputs for piece in pieces), None, evaluation.outputs)
        reference = library(self.cfg, evaluation, show=False).reference(self.real)
        return evaluation.values(drawn, reference)[evaluation.main]


def _averaged(checkpoint: Path, parts: Parts) -> Any:
    """The model with the averaged weights of a checkpoint, apart from the one that is trained."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
    denoiser = copy.deepcopy(parts.denoiser)
    prefix = "denoiser.backbone."
    denoiser.backbone.load_state_dict(
        {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    )
    return denoiser.requires_grad_(False).eval()
