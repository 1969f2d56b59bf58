"""Numbered images: image i is a function of (weights, sampler, sample seed, i) only, shared out over the devices."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from tqdm import tqdm

from diffsweep.diffusion import Denoiser, Sampler, Schedule
from diffsweep.training.streams import generator


class Sampling(LightningModule):
    """Draws numbered samples; Lightning's predict loop shares the numbers out over devices and nodes.

    Args:
        denoiser: Trained model.
        sampler: How it is integrated back.
        schedule: The schedule whose levels are visited.
        decode: From what the network sees to stored data, as [-1, 1] to uint8.
        shape: Of one sample, as (C, H, W).
        classes: Number of labels the backbone is told, 0 for none; sample i has label i mod classes.
        seed: Sample seed.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        sampler: Sampler,
        schedule: Schedule,
        decode: Callable[[Tensor], Tensor],
        shape: tuple[int, ...],
        classes: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.sampler = sampler
        self.schedule = schedule
        self.decode = decode
        self.shape = shape
        self.classes = classes
        self.seed = seed

    def predict_step(self, batch: Tensor, batch_idx: int) -> tuple[Tensor, Tensor]:
        """(numbers, samples) of a batch of numbers (N,)."""
        numbers = batch.tolist()
        streams = [generator(self.seed, "image", number) for number in numbers]
        noise = torch.stack([torch.randn(self.shape, generator=stream) for stream in streams]).to(self.device)
        labels = (
            torch.tensor([number % self.classes for number in numbers], device=self.device) if self.classes else None
        )
        x0 = self.sampler(self.denoiser, noise, schedule=self.schedule, generator=streams, condition=labels)
        return batch.cpu(), self.decode(x0.float()).cpu()


class _Bar(Callback):
    """Shows the sampling and takes its time, without what starting Lightning costs."""

    def __init__(self, total: int, show: bool) -> None:
        self.seconds = 0.0
        self.bar = tqdm(
            desc="sampling", total=total, unit="img", disable=None if show else True, dynamic_ncols=True, leave=False
        )

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.seconds -= time.monotonic()

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.bar.update(len(outputs[0]) * trainer.world_size)

    def on_predict_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.seconds += time.monotonic()
        self.bar.close()


@dataclass(frozen=True)
class Drawn:
    """What was drawn.

    Attributes:
        samples: In their order, as stored data, on the CPU.
        seconds: That drawing them took, without starting Lightning.
        device: Where this rank drew its share.
    """

    samples: Tensor
    seconds: float
    device: torch.device


def draw(
    sampling: Sampling, make_trainer: Callable[..., Trainer], n: int, batch_size: int, *, show: bool = True
) -> Drawn:
    """Samples 0 ... n - 1 in order, the same on every rank.

    Args:
        sampling: What to draw from.
        make_trainer: Lightning trainer with the given callbacks.
        n: How many, >= 1.
        batch_size: How many at a time on a device, >= 1; changes speed and memory only.
        show: Whether to draw a bar when standard error is a terminal.

    Raises:
        ValueError: for samples that are not finite.
    """
    bar = _Bar(n, show)
    trainer = make_trainer(callbacks=[bar])
    chunks = torch.arange(n).split(min(batch_size, -(-n // trainer.world_size)))
    drawn: Any = trainer.predict(sampling, _Share(chunks, trainer), return_predictions=True) or []
    if trainer.world_size > 1:
        gathered: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(gathered, drawn)
        drawn = [pair for part in gathered for pair in part]
    numbers = torch.cat([pair[0] for pair in drawn])
    samples = torch.cat([pair[1] for pair in drawn])[numbers.argsort()]
    return Drawn(samples, bar.seconds, trainer.strategy.root_device)


class _Share:
    """Every ranks-th chunk; the rank is known only once the processes run."""

    def __init__(self, chunks: tuple[Tensor, ...], trainer: Trainer) -> None:
        self.chunks = chunks
        self.trainer = trainer

    def __iter__(self) -> Any:
        return iter(self.chunks[self.trainer.global_rank :: self.trainer.world_size])

    def __len__(self) -> int:
        return len(self.chunks[self.trainer.global_rank :: self.trainer.world_size])
