"""A fit: a model is trained, from its last checkpoint if there is one, and leaves averaged weights and done.json."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from lightning.pytorch.loggers import Logger
from safetensors.torch import save_file
from torch import Tensor, nn

from diffsweep.conditioners.conditioned import example_condition, read_condition
from diffsweep.conditioners.conditioner import prepare
from diffsweep.data.examples import load_checked
from diffsweep.data.source import Source
from diffsweep.diffusion.objective import Objective
from diffsweep.messages import say
from diffsweep.ranks import is_first_rank
from diffsweep.scoring.score import Scoring
from diffsweep.settings import TrainingSettings
from diffsweep.sweep.store.lease import LeaseLostError
from diffsweep.sweep.store.record import Fit, atomic, provenance
from diffsweep.tracking import loggers
from diffsweep.trainer import make_trainer
from diffsweep.training.batches import Batches
from diffsweep.training.checkpoint import Checkpoints
from diffsweep.training.cost import call_flops, parameters
from diffsweep.training.ema import Averaging
from diffsweep.training.module import Training
from diffsweep.training.power_average import KeptAverages
from diffsweep.training.progress import Progress
from diffsweep.training.run_training import checked_checkpoint, run_training
from diffsweep.training.sample_pictures import SamplePictures
from diffsweep.training.scoring_callbacks import (
    IntermediateEvaluation,
    PruningCallback,
    PruningPolicy,
    TrainingPruned,
    ValidationCallback,
    WeightsEvaluator,
)
from diffsweep.training.training_data import TrainingData
from diffsweep.training.validation import Validation

OptimizerFactory = Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True, eq=False)
class Fitting:
    """How a model is trained.

    Attributes:
        objective: The loss.
        optimizer: From parameters to a torch optimizer.
        settings: Number of steps, batches, learning rate, averages.
        scoring: How the result is scored, with the model that is trained and the devices: pictures and scores during
            the training are made likewise.
        validation: Evaluations during the training; None for none.
        pruning: When and by whom the training may be stopped; None for never.
        latents: What is trained on in place of the stored data: the same examples as the network sees them.
    """

    objective: Objective
    optimizer: OptimizerFactory
    settings: TrainingSettings
    scoring: Scoring
    validation: Validation | None = None
    pruning: PruningPolicy | None = None
    latents: Source | None = None


def _as_it_is(x: Tensor) -> Tensor:
    return x


def fit(fitting: Fitting, record: Fit, mirrors: Sequence[Logger] = (), held: Callable[[], bool] = lambda: True) -> None:
    """Train, from the last checkpoint if there is one, and leave the averaged weights and done.json.

    Args:
        fitting: What is trained, and how.
        record: Of the training; its config is written.
        mirrors: Loggers that are shown the training.
        held: Whether this process still has the right to train it.

    Raises:
        ValueError: for data that cannot be had, a loss that diverges, a checkpoint that cannot be read.
        Interrupted: after SIGTERM or SIGINT, with the state saved.
        TrainingPruned: after the pruning policy stopped it, with the state saved.
    """
    settings, scoring = fitting.settings, fitting.scoring
    model, run_trainer = scoring.model, scoring.trainer
    train = load_checked(model.dataset, "train")
    held_out = load_checked(model.dataset, "test")
    for split in (train, held_out):
        prepare(model.conditioners.values(), split)
    # Before anything is written: what a condition needs of the data may be known by the data only.
    read_condition(model.conditioners, train.take(torch.arange(min(len(train), 2))))
    checkpoint = checked_checkpoint(record)
    batches = functools.partial(
        Batches,
        draw=fitting.objective.draw,
        settings=settings,
        shape=model.dataset.shape,
        conditioners=model.conditioners,
        counter=run_trainer.randomness == "device",
    )
    module = Training(
        model.denoiser,
        fitting.objective,
        _as_it_is if fitting.latents is not None else model.dataset.encode,
        fitting.optimizer,
        settings,
        trainer=run_trainer,
    )
    # The network is shown as many tensors of the data's shape as it says.
    size, inputs = parameters(model.denoiser), getattr(model.denoiser.backbone, "inputs", 1)
    shown = (inputs * model.dataset.shape[0], *model.dataset.shape[1:])
    flops = call_flops(model.denoiser.backbone, shown, example_condition(model.conditioners, 1))
    if is_first_rank():
        counted = f", {flops / 1e9:,.3g} GFLOP a call and example" if flops else ""
        say(f"fit {record.signature}: a network of {size:,} parameters{counted}")
    progress = Progress(
        record,
        settings.steps,
        settings.batch_size,
        run_trainer.log_every,
        show=run_trainer.progress and is_first_rank(),
    )
    checkpoints = Checkpoints(checkpoint, run_trainer.checkpoint_seconds, held)
    averaging = Averaging(settings.ema_decay)
    every = fitting.validation.every if fitting.validation is not None and fitting.validation.keep == "best" else None
    kept = KeptAverages(
        tuple(settings.averages or ()),
        settings.snapshot_steps | set(range(every, settings.steps, every) if every else ()),
        settings.kept_steps,
        averaging,
        record.checkpoints,
    )
    validation = pruning = None
    if fitting.validation is not None:
        evaluation = IntermediateEvaluation.of(fitting.validation, scoring.settings.cache, run_trainer)
        evaluator = WeightsEvaluator(model, train, evaluation)
        validation = ValidationCallback(fitting.validation, evaluator, averaging, progress, settings.steps)
    if fitting.pruning is not None:
        evaluation = IntermediateEvaluation.like_result(scoring, fitting.pruning.samples)
        evaluator = WeightsEvaluator(model, train, evaluation)
        pruning = PruningCallback(fitting.pruning, evaluator, averaging, checkpoint, progress)
    pictures = [
        SamplePictures(scoring, record, mirror, averaging, progress)
        for mirror in mirrors
        if isinstance(mirror, loggers.WandbLogger) and mirror.settings.samples_every
    ]
    # The order matters: a checkpoint must hold the step's average, its loss and what is known of it.
    callbacks = [averaging, kept, progress, validation, pruning, *pictures, checkpoints]
    trainer = make_trainer(
        run_trainer,
        record.folder,
        max_steps=settings.steps,
        max_epochs=-1,
        logger=list(mirrors),
        callbacks=[callback for callback in callbacks if callback is not None],
    )
    run_training(
        trainer, module, TrainingData(batches, fitting.latents or train, run_trainer.loading), record, checkpoints
    )
    if pruning is not None and pruning.stopped:
        if is_first_rank():
            record.write_status("waiting", step=trainer.global_step, steps=settings.steps, reason="pruned")
        raise TrainingPruned
    if not held():
        raise LeaseLostError(f"fit {record.signature} was taken over by another process while this one slept")
    if is_first_rank():
        steps = trainer.global_step
        progress.record_last_step(trainer, trainer.optimizers[0].param_groups[0]["lr"])
        # Not those of the module: Lightning does not touch them where a checkpoint of the last step leaves none to do.
        weights = averaging.backbone(module)
        if validation is not None and validation.best.weights is not None:
            weights = validation.best.weights
            kept.write(trainer, module, powers=False, own=True)
        # A training that ends early ends between the steps that were foreseen.
        kept.write(trainer, module, powers=kept.step not in kept.steps, own=False)
        with atomic(record.checkpoints / "ema.safetensors") as temporary:
            save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, temporary)
        record.write_done(
            {
                "fit": record.signature,
                "steps": steps,
                "seconds": progress.seconds,
                "images_per_second": steps * settings.batch_size / progress.seconds,
                "loss": progress.loss,
                "data_digest": train.digest(),
                "examples": len(train),
                "parameters": size,
                "call_flops": flops,
                **(validation.summary(steps) if validation is not None else {}),
                **provenance(),
            }
        )
        record.write_status("done", step=steps, steps=steps, loss=progress.loss)
        # Weights are saved and nothing can resume a finished training: the optimizer's state is only a burden.
        checkpoint.unlink(missing_ok=True)
        for mirror in mirrors:
            loggers.log_training(mirror, record)
    trainer.strategy.barrier()
