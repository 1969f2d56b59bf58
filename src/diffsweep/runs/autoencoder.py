"""The autoencoder of a config: built, made by its stage, and loaded when it is finished."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from omegaconf import DictConfig
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diffsweep.autoencoders.autoencoder import Autoencoder
from diffsweep.autoencoders.latent_dataset import LatentDataset
from diffsweep.autoencoders.latent_shards import LatentShards, LatentSource
from diffsweep.autoencoders.latent_space import LatentSpace
from diffsweep.autoencoders.losses import Losses
from diffsweep.data.examples import Dataset
from diffsweep.mistakes import BadValue, below
from diffsweep.runs.instantiate import make, settings_at
from diffsweep.runs.optimizer import make_optimizer, tried_optimizer
from diffsweep.settings import Split, TrainerSettings, TrainingSettings
from diffsweep.sweep.store.record import AutoencoderRecord
from diffsweep.sweep.store.signature import autoencoder_signature
from diffsweep.training.fit_autoencoder import AutoencoderFitting


@runtime_checkable
class HasWeights(Protocol):
    """An autoencoder whose weights are there already."""

    def state(self) -> Mapping[str, Tensor]:
        """The weights by their names in it. Raises ValueError if they are not those that were asked for."""
        ...


def make_dataset(cfg: DictConfig) -> Dataset:
    """The data of a config as its network sees them: in latents if it has an autoencoder, whose weights come later.

    Raises:
        ValueError: for a bad value, or data that the autoencoder does not take.
    """
    dataset: Dataset = make(cfg, "dataset")
    if not cfg.get("autoencoder"):
        return dataset
    # The first weights must not depend on what was drawn before, nor move what is drawn after.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(cfg))
        made: Autoencoder = make(cfg, "autoencoder.network")
    with below("autoencoder"):
        space = LatentSpace(made, dataset.modality, cfg.autoencoder.batch_size)
        stated = cfg.autoencoder.latent_shape
        if tuple(stated) != made.latent_shape:
            raise BadValue("latent_shape", list(stated), f"must be {list(made.latent_shape)}, that of its network")
    return LatentDataset(dataset, space)


def _seed(cfg: DictConfig) -> int:
    seed = cfg.autoencoder.get("seed", 0)
    return int(seed) if isinstance(seed, (int, float)) else 0


def make_fitting(cfg: DictConfig, dataset: LatentDataset) -> AutoencoderFitting | None:
    """How the autoencoder of a config is trained; None if its weights are given. Raises ValueError for a bad value."""
    node = cfg.autoencoder
    if node.get("training") is None:
        return None
    seed = int(node.seed) if isinstance(node.seed, float) and node.seed.is_integer() else node.seed
    given = {"ema_decay": node.ema.decay, "seed": seed}
    with below("autoencoder"):
        settings = TrainingSettings(**settings_at(TrainingSettings, cfg, "autoencoder.training", *given), **given)
    losses: Losses = make(cfg, "autoencoder.losses")
    discriminator = None
    if losses.adversarial:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_seed(cfg) + 1)
            discriminator = make(cfg, "autoencoder.discriminator")
        if discriminator is None:
            raise BadValue("autoencoder.losses.adversarial", losses.adversarial, "needs autoencoder.discriminator")
    optimizer = make_optimizer(cfg, "autoencoder.optimizer")
    tried_optimizer(cfg, "autoencoder.optimizer", optimizer, dataset.space.autoencoder.parameters())
    fitting = AutoencoderFitting(losses, discriminator, optimizer, settings)
    _try(fitting, dataset)
    return fitting


def _try(fitting: AutoencoderFitting, dataset: LatentDataset) -> None:
    """Try a reconstruction of two images, and what the discriminator says of it. Raises ValueError."""
    autoencoder = dataset.space.autoencoder
    part = "network"
    try:
        with torch.no_grad():
            noise = torch.zeros(2, *autoencoder.latent_shape)
            found = autoencoder.reconstruct(torch.zeros(2, *autoencoder.shape), noise)
            part = "discriminator"
            if fitting.discriminator is not None:
                fitting.discriminator(found.x)
    except RuntimeError as error:
        line = " ".join(str(error).split())[:200]
        raise ValueError(f"autoencoder.{part} does not take images {tuple(autoencoder.shape)}: {line}") from error


def on_one_device(trainer: TrainerSettings) -> TrainerSettings:
    """The settings of a trainer for one device of the same kind, with which no result changes."""
    devices = trainer.devices
    one = devices[:1] if isinstance(devices, list) else 1
    return dataclasses.replace(trainer, devices=one, num_nodes=1, strategy="auto")


def load_autoencoder(dataset: LatentDataset, record: AutoencoderRecord) -> None:
    """Put the weights and the scale of a finished autoencoder into a dataset that is seen in its latents.

    Raises:
        ValueError: if it is not finished, or its files cannot be read.
    """
    if dataset.space.signature == record.signature:
        return
    if not record.done:
        raise ValueError(f"autoencoder {record.signature} is not finished: {record.error() or 'it was never trained'}")
    path = record.checkpoints / "ema.safetensors"
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    scale = dataset.space.autoencoder.given_scale or _shards(record).scale
    dataset.space.load(weights, scale, record.signature)


def latent_source(dataset: LatentDataset, record: AutoencoderRecord, split: Split = "train") -> LatentSource:
    """A split of a dataset in the latents that a finished autoencoder has written. Raises ValueError."""
    return LatentSource(_shards(record), dataset.load(split))


def has_latents(record: AutoencoderRecord) -> bool:
    """Whether a finished autoencoder has written the latents of all images."""
    return LatentShards.read(record.latents) is not None


def _shards(record: AutoencoderRecord) -> LatentShards:
    shards = LatentShards.read(record.latents)
    if shards is None:
        raise ValueError(
            f"{record.latents} is not complete: remove {record.done_file}, and the autoencoder is finished again"
        )
    return shards


def given_state(dataset: LatentDataset) -> Callable[[], Mapping[str, Tensor]] | None:
    """What reads the weights of an autoencoder that is given; None if it is trained."""
    made = dataset.space.autoencoder
    return made.state if isinstance(made, HasWeights) else None


def finished_dataset(cfg: DictConfig, runs: str | Path) -> Dataset:
    """The data of a config as its network sees them, with the weights of its finished autoencoder if it has one.

    Args:
        cfg: The composed config.
        runs: Folder of all runs.

    Raises:
        ValueError: as `make_dataset` and `load_autoencoder`.
    """
    dataset = make_dataset(cfg)
    if isinstance(dataset, LatentDataset):
        record = AutoencoderRecord.named(autoencoder_signature(cfg), runs)
        assert record is not None
        load_autoencoder(dataset, record)
    return dataset
