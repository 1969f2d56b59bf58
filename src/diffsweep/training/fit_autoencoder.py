"""An autoencoder as a stage of its own: trained or given, its latents written, measured, and shown."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from diffsweep.autoencoders.latent_dataset import LatentDataset
from diffsweep.autoencoders.latent_shards import LatentShards
from diffsweep.autoencoders.latent_space import Scale
from diffsweep.autoencoders.losses import Losses
from diffsweep.data.examples import load_checked
from diffsweep.data.source import Source
from diffsweep.diffusion.generators import Generator, randn
from diffsweep.evaluation.evaluate import Evaluation
from diffsweep.messages import say
from diffsweep.scoring.reconstruction import draw_reconstructions, measure_reconstruction
from diffsweep.settings import EvaluationSettings, TrainerSettings, TrainingSettings
from diffsweep.sweep.store.lease import LeaseLostError
from diffsweep.sweep.store.record import AutoencoderRecord, atomic, make_folder, provenance
from diffsweep.tracking import loggers
from diffsweep.trainer import make_trainer
from diffsweep.training.autoencoder_module import AutoencoderTraining
from diffsweep.training.batches import Batches
from diffsweep.training.checkpoint import Checkpoints
from diffsweep.training.cost import parameters
from diffsweep.training.ema import Averaging
from diffsweep.training.progress import Progress
from diffsweep.training.run_training import checked_checkpoint, run_training
from diffsweep.training.training_data import TrainingData


@dataclass(frozen=True, eq=False)
class AutoencoderFitting:
    """How an autoencoder is trained.

    Attributes:
        losses: What for.
        discriminator: What it is up against; None for nothing.
        optimizer: From parameters to a torch optimizer.
        settings: Number of steps, batches, learning rate, average.
    """

    losses: Losses
    discriminator: nn.Module | None
    optimizer: Callable[[Any], torch.optim.Optimizer]
    settings: TrainingSettings


@dataclass(frozen=True, eq=False)
class AutoencoderStage:
    """What makes an autoencoder and the latents of a dataset.

    Attributes:
        dataset: In its latents: with the autoencoder, not trained yet.
        fitting: How it is trained; None if its weights are given.
        given: Reads those weights, by their names in the autoencoder.
        evaluation: What reconstructions are measured by.
        settings: How many of them, and compared with which data.
        trainer: Where it computes.
        for_training: Whether a model is trained in its latents, for which those of all images are written.
    """

    dataset: LatentDataset
    fitting: AutoencoderFitting | None
    given: Callable[[], Mapping[str, Tensor]] | None
    evaluation: Evaluation
    settings: EvaluationSettings
    trainer: TrainerSettings
    for_training: bool = True


class _Terms(Callback):
    """Records the single losses of a step in lines of their own."""

    def __init__(self, progress: Progress, every: int) -> None:
        self.progress, self.every = progress, every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every == 0 and isinstance(pl_module, AutoencoderTraining):
            self.progress.note(trainer, **{name: float(value) for name, value in pl_module.terms.items()})


def fit_autoencoder(
    stage: AutoencoderStage,
    record: AutoencoderRecord,
    mirrors: Sequence[Logger] = (),
    held: Callable[[], bool] = lambda: True,
) -> None:
    """Train, from the last checkpoint if there is one; write weights, latents, pictures and done.json.

    Latents are left out where nothing is trained in them and their scale is known.

    Args:
        stage: What is made, and how.
        record: Of the autoencoder; its config is written.
        mirrors: Loggers that are shown the training.
        held: Whether this process still has the right to make it.

    Raises:
        ValueError: for data that cannot be had, a loss that diverges, a checkpoint that cannot be read.
        Interrupted: after SIGTERM or SIGINT, with the state saved.
    """
    dataset, space = stage.dataset, stage.dataset.space
    train = load_checked(dataset, "train")
    load_checked(dataset, "test")
    if stage.fitting is not None:
        weights, facts, trainer = _trained(stage, stage.fitting, record, train, mirrors, held)
    else:
        assert stage.given is not None
        weights, facts, trainer = stage.given(), dict[str, Any](steps=None), _trainer(stage, record)
        make_folder(record.checkpoints)
    started = time.monotonic()
    channels = space.autoencoder.latent_shape[0]
    unscaled = Scale(torch.zeros(channels), torch.ones(channels))
    space.load(dict(weights), unscaled, record.signature)
    with atomic(record.checkpoints / "ema.safetensors") as temporary:
        kept = space.autoencoder.state_dict()
        save_file({name: value.detach().cpu().clone().contiguous() for name, value in kept.items()}, temporary)
    device, shown = trainer.strategy.root_device, stage.trainer.progress
    given = space.autoencoder.given_scale
    if stage.for_training or given is None:
        record.write_status("running", stage="latents")
        given = _write_latents(stage, record, trainer, train).scale
    space.scale = given
    encoded = time.monotonic()
    record.write_status("running", stage="evaluate")
    with trainer.precision_plugin.forward_context():
        measured = measure_reconstruction(dataset, stage.evaluation, stage.settings, device, show=shown)
        draw_reconstructions(dataset, device, record.pictures_file)
    if not held():
        raise LeaseLostError(f"{record.folder} was taken over by another process while this one slept")
    trained_seconds = facts.pop("seconds", 0.0)
    record.write_done(
        {
            "autoencoder": record.signature,
            **facts,
            "train_seconds": trained_seconds,
            "latents_seconds": encoded - started,
            "seconds": trained_seconds + encoded - started,
            "evaluate_seconds": time.monotonic() - encoded,
            "data_digest": train.digest(),
            "examples": len(train),
            "parameters": parameters(space.autoencoder),
            "latent_shape": " x ".join(map(str, space.autoencoder.latent_shape)),
            **measured,
            **provenance(),
        }
    )
    record.write_status("done")
    # Weights and latents are saved and nothing can resume a finished training.
    (record.checkpoints / "last.ckpt").unlink(missing_ok=True)
    for mirror in mirrors:
        loggers.log_training(mirror, record)


def write_latents(stage: AutoencoderStage, record: AutoencoderRecord) -> None:
    """Write the latents of all images, as of an autoencoder that was finished without. Raises ValueError."""
    _write_latents(stage, record, _trainer(stage, record), load_checked(stage.dataset, "train"))


def _write_latents(
    stage: AutoencoderStage, record: AutoencoderRecord, trainer: Trainer, images: Source
) -> LatentShards:
    device, shown = trainer.strategy.root_device, stage.trainer.progress
    bar = tqdm(desc="latents", total=len(images), unit="img", disable=None if shown else True, leave=False)
    with bar, trainer.precision_plugin.forward_context():
        return LatentShards.write(record.latents, stage.dataset.space, images, device, bar.update)


def _trainer(stage: AutoencoderStage, record: AutoencoderRecord, **more: Any) -> Trainer:
    return make_trainer(stage.trainer, record.folder, logger=more.pop("logger", False), **more)


def _trained(
    stage: AutoencoderStage,
    fitting: AutoencoderFitting,
    record: AutoencoderRecord,
    train: Source,
    mirrors: Sequence[Logger],
    held: Callable[[], bool],
) -> tuple[Mapping[str, Tensor], dict[str, Any], Trainer]:
    """Averaged weights, what is to be recorded of the training, and its trainer."""
    settings, autoencoder = fitting.settings, stage.dataset.space.autoencoder
    checkpoint = checked_checkpoint(record)
    module = AutoencoderTraining(
        autoencoder,
        fitting.discriminator,
        fitting.losses,
        stage.dataset.inner.encode,
        fitting.optimizer,
        settings,
    )
    size = parameters(autoencoder)
    say(f"autoencoder {record.signature}: {size:,} parameters, latents {autoencoder.latent_shape}")
    every = stage.trainer.log_every
    progress = Progress(record, settings.steps, settings.batch_size, every, show=stage.trainer.progress)
    # Whoever is killed while latents are written trains nothing again.
    checkpoints = Checkpoints(checkpoint, stage.trainer.checkpoint_seconds, held, last=settings.steps)
    averaging = Averaging(settings.ema_decay)
    trainer = _trainer(
        stage,
        record,
        max_steps=settings.steps,
        max_epochs=-1,
        logger=list(mirrors),
        # The order matters: a checkpoint must hold the step's average, its loss and what is known of it.
        callbacks=[averaging, progress, _Terms(progress, every), checkpoints],
    )
    batches = functools.partial(
        Batches,
        draw=_draw,
        settings=settings,
        shape=autoencoder.latent_shape,
        counter=stage.trainer.randomness == "device",
    )
    run_training(trainer, module, TrainingData(batches, train, stage.trainer.loading), record, checkpoints)
    if not held():
        raise LeaseLostError(f"{record.folder} was taken over by another process while this one slept")
    progress.record_last_step(trainer, trainer.optimizers[0].param_groups[0]["lr"])
    prefix = "autoencoder."
    weights = {
        name.removeprefix(prefix): value
        for name, value in averaging.averaged(module).items()
        if name.startswith(prefix)
    }
    facts = {
        "steps": trainer.global_step,
        "seconds": progress.seconds,
        "images_per_second": settings.steps * settings.batch_size / max(progress.seconds, 1e-9),
        "loss": progress.loss,
    }
    return weights, facts, trainer


def _draw(shape: tuple[int, ...], stream: Generator) -> tuple[Tensor, Tensor]:
    """What is random in a batch: noise of the posterior; the first, which a diffusion draws times of, is nothing."""
    noise = randn(shape, stream)
    return noise.new_zeros(shape[0]), noise
