"""Numbered images: image i is a function of (weights, sampler, sample seed, i) only, shared out over the devices."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from tqdm import tqdm

from diffsweep.diffusion import Denoise, Denoiser, Level, Sampler, Schedule
from diffsweep.diffusion.denoiser import Spread
from diffsweep.diffusion.guidance import Guidance, Unguided
from diffsweep.training.streams import generator

UNGUIDED = Unguided()


class Sampling(LightningModule):
    """Draws numbered samples; Lightning's predict loop shares the numbers out over devices and nodes.

    Args:
        denoiser: Trained model.
        sampler: How it is integrated back.
        schedule: The schedule whose levels are visited.
        decode: From what the network sees to stored data, as [-1, 1] to uint8.
        shape: Of one sample, as (C, H, W).
        classes: Number of labels of the data, 0 for none; sample i has label i mod classes.
        seed: Sample seed.
        guidance: Where the denoiser is made to aim.
        conditional: Whether the denoiser is told the labels; guidance always is.
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
        guidance: Guidance = UNGUIDED,
        *,
        conditional: bool = True,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.sampler = sampler
        self.schedule = schedule
        self.decode = decode
        self.shape = shape
        self.classes = classes
        self.seed = seed
        self.rows = 0
        # A weaker model or a classifier moves to the device with this module.
        parts = {name: part for name, part in vars(guidance).items() if isinstance(part, nn.Module)}
        self.helpers = nn.ModuleDict(parts)
        models = {name: self._told(part, conditional) for name, part in parts.items() if isinstance(part, Denoiser)}
        # With nothing to replace it need not be a dataclass, which somebody's own guidance may not be.
        aware: Guidance = replace(cast(Any, guidance), **models) if models else guidance
        self.guided: Denoise = aware(self._told(denoiser, conditional), sampler.levels(schedule))
        if isinstance(denoiser, Spread) and isinstance(guidance, Unguided):
            # Guidance moves the mean and calls the model as often as it likes: its variance is then no longer known.
            self.guided = _Spreading(self.guided, denoiser.spread)

    def _told(self, denoiser: Denoiser, conditional: bool) -> Denoise:
        """The denoiser, counting its rows; a model without labels is not told those that guidance is told."""

        def told(x: Tensor, level: Level, condition: Tensor | None = None) -> Tensor:
            self.rows += len(x)
            return denoiser(x, level, condition if conditional else None)

        return told

    def predict_step(self, batch: Tensor, batch_idx: int) -> tuple[Tensor, Tensor]:
        """(numbers, samples) of a batch of numbers (N,)."""
        numbers = batch.tolist()
        streams = [generator(self.seed, "image", number) for number in numbers]
        noise = torch.stack([torch.randn(self.shape, generator=stream) for stream in streams]).to(self.device)
        labels = (
            torch.tensor([number % self.classes for number in numbers], device=self.device) if self.classes else None
        )
        x0 = self.sampler(self.guided, noise, schedule=self.schedule, generator=streams, condition=labels)
        return batch.cpu(), self.decode(x0.float()).cpu()


@dataclass(frozen=True)
class _Spreading:
    """A denoiser with another one's learned variance."""

    denoise: Denoise
    spread: Callable[[Level, Level], Tensor]

    def __call__(self, x: Tensor, level: Level, condition: Tensor | None = None) -> Tensor:
        return self.denoise(x, level, condition)


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
        nfe: Network evaluations that a sample took, those of guidance included; a whole number if all took the same.
    """

    samples: Tensor
    seconds: float
    device: torch.device
    nfe: float


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
    sampling.rows = 0
    drawn: Any = trainer.predict(sampling, _Share(chunks, trainer), return_predictions=True) or []
    rows = sampling.rows
    if trainer.world_size > 1:
        gathered: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(gathered, (drawn, rows))
        drawn = [pair for part, _ in gathered for pair in part]
        rows = sum(part for _, part in gathered)
    numbers = torch.cat([pair[0] for pair in drawn])
    samples = torch.cat([pair[1] for pair in drawn])[numbers.argsort()]
    return Drawn(samples, bar.seconds, trainer.strategy.root_device, rows // n if rows % n == 0 else rows / n)


class _Share:
    """Every ranks-th chunk; the rank is known only once the processes run."""

    def __init__(self, chunks: tuple[Tensor, ...], trainer: Trainer) -> None:
        self.chunks = chunks
        self.trainer = trainer

    def __iter__(self) -> Any:
        return iter(self.chunks[self.trainer.global_rank :: self.trainer.world_size])

    def __len__(self) -> int:
        return len(self.chunks[self.trainer.global_rank :: self.trainer.world_size])
