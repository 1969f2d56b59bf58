"""Numbered images: image i is a function of (weights, sampler, sample seed, i) only, shared out over the devices.

An extractor looks at each batch where it was drawn: only features travel, and no more pictures are kept than are shown.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from tqdm import tqdm

from diffsweep.diffusion import Denoise, Denoiser, Level, Sampler, Schedule
from diffsweep.diffusion.denoiser import Spread
from diffsweep.diffusion.guidance import Guidance, Unguided
from diffsweep.evaluation.extractor import Extractor
from diffsweep.evaluation.features import Features
from diffsweep.random_streams import generator
from diffsweep.trainer import Interrupted

UNGUIDED = Unguided()


class Piece(NamedTuple):
    """A batch of samples: numbers (N,), stored data, which are finite (N,), and what the extractor made of them.

    One that is not finite is grey, or the origin of the plane.
    """

    numbers: Tensor
    samples: Tensor
    finite: Tensor
    outputs: dict[str, Tensor]


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
        extractor: Looks at the samples; None for none.
        outputs: Those of its outputs that are wanted.
        shown: How many samples are kept, beginning with number 0; points are all kept.
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
        extractor: Extractor | None = None,
        outputs: Sequence[str] = (),
        shown: int = 0,
    ) -> None:
        super().__init__()
        # Not a module of this one: Lightning would change its precision with that of the model.
        self.extractor = extractor
        self.outputs = outputs
        self.shown = shown
        self.extract_seconds = 0.0
        self.labelled = bool(classes) and (conditional or not isinstance(guidance, Unguided))
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

    def on_predict_start(self) -> None:
        if self.extractor is not None:
            self.extractor = self.extractor.to(self.device)

    def predict_step(self, batch: Tensor, batch_idx: int) -> Piece:
        """What becomes of a batch of numbers (N,), on the CPU."""
        numbers = batch.tolist()
        streams = [generator(self.seed, "image", number) for number in numbers]
        noise = torch.stack([torch.randn(self.shape, generator=stream) for stream in streams]).to(self.device)
        labels = self.labels(batch)
        x0 = self.sampler(self.guided, noise, schedule=self.schedule, generator=streams, condition=labels).float()
        finite = torch.isfinite(x0).flatten(1).all(dim=1)
        samples = self.decode(torch.where(finite.view(-1, *[1] * (x0.ndim - 1)), x0, 0))
        started = self._now()
        found = self.extractor(samples) if self.extractor is not None else {}
        outputs = {name: found[name].cpu() for name in {"features", *self.outputs} if name in found}
        self.extract_seconds += self._now() - started
        kept = samples if samples.ndim == 2 or self.extractor is None else samples[: max(0, self.shown - numbers[0])]
        return Piece(batch.cpu(), kept.cpu(), finite.cpu(), outputs)

    def labels(self, numbers: Tensor) -> Tensor | None:
        """Labels (N,) of the samples with these numbers; None for data without."""
        return (numbers % self.classes).to(self.device) if self.classes else None

    def _now(self) -> float:
        # Work is only queued on a GPU: without this the extractor would be charged for the sampler's.
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.monotonic()


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
        self.bar.update(len(outputs.numbers) * trainer.world_size)

    def on_predict_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.seconds += time.monotonic()
        self.bar.close()


class _Stoppable(Callback):
    """SIGTERM ends the sampling: Lightning only takes note of it, and goes on to the last sample."""

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        def stop(signum: int, frame: Any) -> None:
            if trainer.strategy.launcher is not None:
                trainer.strategy.launcher.kill(signum)
            raise Interrupted(signum)

        # Here, not earlier: Lightning installs its own handler just before. At the end it puts back what it found.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, stop)


@dataclass(frozen=True)
class Drawn:
    """What was drawn.

    Attributes:
        samples: In their order, as stored data, on the CPU: the first ``Sampling.shown``, or all points.
        features: Of all that are finite, in their order; None without an extractor.
        broken: How many samples are not finite.
        seconds: That drawing them took, without starting Lightning and without the extractor.
        extract_seconds: That the extractor took.
        device: Where this rank drew its share.
        nfe: Network evaluations that a sample took, those of guidance included; a whole number if all took the same.
    """

    samples: Tensor
    features: Features | None
    broken: int
    seconds: float
    extract_seconds: float
    device: torch.device
    nfe: float


def draw(
    sampling: Sampling, make_trainer: Callable[..., Trainer], n: int, batch_size: int, *, show: bool = True
) -> Drawn | None:
    """Samples 0 ... n - 1; None on ranks other than the first, which only lend a hand.

    Args:
        sampling: What to draw from.
        make_trainer: Lightning trainer with the given callbacks.
        n: How many, >= 1.
        batch_size: How many at a time on a device, >= 1; changes speed and memory only.
        show: Whether to draw a bar when standard error is a terminal.

    Raises:
        Interrupted: after SIGTERM.
        KeyboardInterrupt: after Ctrl-C.
    """
    bar = _Bar(n, show)
    trainer = make_trainer(callbacks=[bar, _Stoppable()])
    chunks = torch.arange(n).split(min(batch_size, -(-n // trainer.world_size)))
    sampling.rows, sampling.extract_seconds = 0, 0.0
    try:
        pieces: Any = trainer.predict(sampling, _Share(chunks, trainer), return_predictions=True) or []
    except SystemExit as stop:
        # Lightning ends a process after Ctrl-C with exit code 1, as if something had failed.
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise stop.__context__ from None
        raise
    rows = sampling.rows
    if trainer.world_size > 1:
        first = trainer.is_global_zero
        gathered: list[Any] | None = [None] * trainer.world_size if first else None
        torch.distributed.gather_object((pieces, rows), gathered)
        if gathered is None:
            return None
        pieces = [piece for part, _ in gathered for piece in part]
        rows = sum(part for _, part in gathered)
    pieces.sort(key=lambda piece: int(piece.numbers[0]))
    finite = torch.cat([piece.finite for piece in pieces])
    features = None
    if sampling.extractor is not None:
        labels = sampling.labels(torch.arange(n)) if sampling.labelled else None
        every = Features.collect(
            (piece.outputs for piece in pieces), None if labels is None else labels.cpu(), sampling.outputs
        )
        features = every if bool(finite.all()) else every.take(finite)
    return Drawn(
        torch.cat([piece.samples for piece in pieces]),
        features,
        int((~finite).sum()),
        bar.seconds - sampling.extract_seconds,
        sampling.extract_seconds,
        trainer.strategy.root_device,
        rows // n if rows % n == 0 else rows / n,
    )


class _Share:
    """Every ranks-th chunk; the rank is known only once the processes run."""

    def __init__(self, chunks: tuple[Tensor, ...], trainer: Trainer) -> None:
        self.chunks = chunks
        self.trainer = trainer

    def __iter__(self) -> Any:
        return iter(self.chunks[self.trainer.global_rank :: self.trainer.world_size])

    def __len__(self) -> int:
        return len(self.chunks[self.trainer.global_rank :: self.trainer.world_size])
