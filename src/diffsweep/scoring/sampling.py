"""Numbered images: image i is a function of (weights, sampler, sample seed, i) only, shared out over the devices.

An extractor looks at each batch where it was drawn: only features travel, and no more pictures are kept than are shown.
"""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any, NamedTuple, cast

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from tqdm import tqdm

from diffsweep.compilation import compile_network
from diffsweep.conditioners import Label
from diffsweep.conditioners.conditioner import Conditioner
from diffsweep.data.examples import Dataset
from diffsweep.diffusion import Denoise, Denoiser, Level, Sampler, Schedule
from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Spread
from diffsweep.diffusion.guidance import Guidance, Unguided
from diffsweep.evaluation.extractor import Extractor
from diffsweep.evaluation.features import Features
from diffsweep.philox import CounterGenerator
from diffsweep.random_streams import generator
from diffsweep.scoring.agreement import agreement_names, agreements
from diffsweep.scoring.editing import Editing
from diffsweep.scoring.requests import Requests
from diffsweep.scoring.saturation import saturated_values
from diffsweep.scoring.text_metrics import TEXT_SCORES, TextScore, score_texts
from diffsweep.settings import SampleChoice, TrainerSettings
from diffsweep.trainer import Interrupted

UNGUIDED = Unguided()


class SampleBatch(NamedTuple):
    """A batch of samples: numbers (N,), stored data, which are finite (N,), and the extractor's outputs.

    A sample that is not finite is grey, or the origin of the plane. `saturated` is how many values of each are at an
    end of their range (N,); None for real numbers.
    """

    numbers: Tensor
    samples: Tensor
    finite: Tensor
    outputs: dict[str, Tensor]
    saturated: Tensor | None


@dataclass(frozen=True, eq=False)
class Model:
    """A denoiser, and what it takes to draw samples with it.

    Attributes:
        denoiser: The model.
        schedule: Whose levels samplers visit.
        dataset: Of its data: shapes, labels, and how samples are decoded.
        conditioners: What it is told, by the names of the entries; empty for nothing.
    """

    denoiser: Denoiser
    schedule: Schedule
    dataset: Dataset
    conditioners: Mapping[str, Conditioner] = field(default_factory=dict)

    def decode(self, x: Tensor) -> Tensor:
        """Stored data from what the network sees, as uint8 from [-1, 1]."""
        return self.dataset.decode(x)

    def frozen_copy(self, weights: Mapping[str, Tensor]) -> Model:
        """The same model with other weights of its network, which shares nothing with this one and is not trained."""
        denoiser = copy.deepcopy(self.denoiser)
        denoiser.backbone.load_state_dict(weights)
        return replace(self, denoiser=denoiser.requires_grad_(False).eval())


@dataclass(frozen=True, eq=False)
class FeatureExtraction:
    """What is done with samples where they are drawn.

    Attributes:
        extractor: Looks at all of them.
        outputs: Those of its outputs that are wanted; `features` always is.
        shown: How many are kept, beginning with number 0; of points, which are shown as a cloud, all are.
    """

    extractor: Extractor
    outputs: Sequence[str] = ()
    shown: int = 0


class Sampling(LightningModule):
    """Draws numbered samples; Lightning's predict loop shares the numbers out over devices and nodes.

    What each sample is asked for follows from its number, see `Requests`. `editing` may be set to make them of given
    pictures, with the sampler that it gives.

    Args:
        model: What is sampled from.
        sampler: How it is integrated back.
        seed: Sample seed.
        guidance: Where the denoiser is made to aim.
        extraction: What is done with the samples; None keeps all of them and does nothing else.
        trainer: Where noise is drawn, what is compiled, and how images lie in memory; None for on the CPU, and nothing.
    """

    def __init__(
        self,
        model: Model,
        sampler: Sampler,
        seed: int,
        guidance: Guidance = UNGUIDED,
        extraction: FeatureExtraction | None = None,
        trainer: TrainerSettings | None = None,
    ) -> None:
        super().__init__()
        self.counting = trainer is not None and trainer.randomness == "device"
        self.channels_last = trainer is not None and trainer.channels_last
        self.graphs = trainer is not None and trainer.cuda_graphs
        self.model = model
        self.sampler = sampler
        self.seed = seed
        self.extraction = extraction
        self.extract_seconds = 0.0
        self.rows = 0
        asked = {name: _LOOKED_AT[name](model.dataset) for name in guidance.reads if name not in model.conditioners}
        self.editing = Editing()
        self.text_scores: dict[str, TextScore] = {}
        self.requests = Requests({**model.conditioners, **asked}, model.dataset)
        self.denoiser = model.denoiser
        if trainer is not None and isinstance(trainer.compile, str):
            network = model.denoiser.backbone
            compile_network(network, blocks=trainer.compile == "blocks", cuda_graphs=trainer.cuda_graphs)
        if self.channels_last:
            model.denoiser.backbone.to(memory_format=torch.channels_last)
        # A weaker model or a classifier moves to the device with this module.
        parts = {name: part for name, part in vars(guidance).items() if isinstance(part, nn.Module)}
        self.helpers = nn.ModuleDict(parts)
        models = {name: self._counting(part) for name, part in parts.items() if isinstance(part, Denoiser)}
        # With nothing to replace it need not be a dataclass, which somebody's own guidance may not be.
        aware: Guidance = replace(cast(Any, guidance), **models) if models else guidance
        self.guided: Denoise = aware(self._counting(self.denoiser), sampler.levels(model.schedule))
        if isinstance(self.denoiser, Spread) and guidance.keeps_variance:
            self.guided = _WithSpread(self.guided, self.denoiser.spread)

    def ask(self, choice: SampleChoice) -> None:
        """Ask for what is chosen, in the place of what follows from the numbers of samples. Raises ValueError."""
        self.requests = replace(self.requests, choice=choice)

    def _counting(self, denoiser: Denoiser) -> Denoise:
        """The denoiser, counting the rows of its calls."""

        def denoise(x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
            self.rows += len(x)
            if self.graphs:
                # What an earlier call gave may be overwritten from here on.
                torch.compiler.cudagraph_mark_step_begin()
            return denoiser(x, level, condition)

        return denoise

    def on_predict_start(self) -> None:
        if self.extraction is not None:
            # Not a module of this one: Lightning would change its precision with that of the model.
            self.extraction = replace(self.extraction, extractor=self.extraction.extractor.to(self.device))

    def predict_step(self, batch: Tensor, batch_idx: int) -> SampleBatch:
        """The samples of a batch of numbers (N,), on the CPU."""
        numbers = batch.to(self.device) if self.counting else batch
        condition = self.requests(numbers)
        x0 = self._integrated(numbers, condition)
        finite = torch.isfinite(x0).flatten(1).all(dim=1)
        samples = self.model.decode(torch.where(finite.view(-1, *[1] * len(self.model.dataset.shape)), x0, 0))
        samples = self.editing.restored(samples, batch)
        counts = saturated_values(samples)
        saturated = None if counts is None else counts.cpu()
        if self.extraction is None:
            return SampleBatch(batch.cpu(), samples.cpu(), finite.cpu(), {}, saturated)
        started = self._now()
        outputs = self.extraction.extractor(samples)
        wanted = {name: outputs[name].cpu() for name in {"features", *self.extraction.outputs}}
        asked = agreements(self.model.conditioners, condition, samples)
        texts = self.requests.texts(batch) if self.text_scores else None
        if texts is not None:
            asked[TEXT_SCORES] = score_texts(self.text_scores, samples, batch, texts)
        wanted |= {name: values.cpu() for name, values in asked.items()}
        self.extract_seconds += self._now() - started
        if self.model.dataset.modality.picture is not None:
            samples = samples[: max(0, self.extraction.shown - int(batch[0]))]
        return SampleBatch(batch.cpu(), samples.cpu(), finite.cpu(), wanted, saturated)

    def integrate(self, numbers: Tensor) -> Tensor:
        """What the sampler makes of the noise of these samples, (N,): float32 (N, ...), as the network sees data."""
        return self._integrated(numbers, self.requests(numbers))

    def _integrated(self, numbers: Tensor, condition: Condition | None) -> Tensor:
        shape = self.model.dataset.shape
        streams: CounterGenerator | list[torch.Generator]
        if self.counting:
            streams = CounterGenerator(self.seed, "image", numbers)
            noise = streams.randn((len(numbers), *shape))
        else:
            streams = [generator(self.seed, "image", number) for number in numbers.tolist()]
            noise = torch.stack([torch.randn(shape, generator=stream) for stream in streams]).to(self.device)
        if self.channels_last and noise.ndim == 4:
            noise = noise.contiguous(memory_format=torch.channels_last)
        schedule = self.model.schedule
        told = None if condition is None else condition.to(self.device)
        encode = self.model.dataset.encode
        begin = self.editing.begin(noise, numbers, self.sampler.levels(schedule), encode)
        denoise = self.editing.denoise(self.guided, numbers, noise, encode)
        return self.sampler(denoise, begin, schedule=schedule, generator=streams, condition=told).float()

    def _now(self) -> float:
        # Work is only queued on a GPU: without this the extractor would be charged for the sampler's.
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.monotonic()


def _labels_of(dataset: Dataset) -> Label:
    return Label(dataset.classes)


# What a guidance may look at itself, of data whose model need not be told it.
_LOOKED_AT: Mapping[str, Callable[[Dataset], Conditioner]] = {"label": _labels_of}


@dataclass(frozen=True)
class _WithSpread:
    """A denoiser with another one's learned variance."""

    denoise: Denoise
    spread: Callable[[Level, Level], Tensor]

    def __call__(self, x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
        return self.denoise(x, level, condition)


class _Bar(Callback):
    """Shows the sampling and takes its time, without what starting Lightning costs."""

    def __init__(self, total: int, show: bool) -> None:
        self.seconds = 0.0
        self.bar = tqdm(
            desc="sampling", total=total, unit="img", disable=None if show else True, dynamic_ncols=True, leave=False
        )

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds -= time.monotonic()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: SampleBatch,
        batch: Tensor,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.bar.update(len(outputs.numbers) * trainer.world_size)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds += time.monotonic()
        self.bar.close()


class _Stoppable(Callback):
    """SIGTERM ends the sampling: Lightning only takes note of it, and goes on to the last sample."""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def stop(signum: int, frame: FrameType | None) -> None:
            if trainer.strategy.launcher is not None:
                trainer.strategy.launcher.kill(signum)
            raise Interrupted(signum)

        # Here, not earlier: Lightning installs its own handler just before. At the end it puts back what it found.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, stop)


@dataclass(frozen=True)
class SampleSet:
    """Samples that were drawn of a model, and their features.

    Attributes:
        samples: In their order, as stored data, on the CPU: those that were to be kept.
        features: Of all that are finite, in their order; None without an extractor.
        broken: How many samples are not finite.
        seconds: That drawing them took, without starting Lightning and without the extractor.
        extract_seconds: That the extractor took.
        device: Where this rank drew its share.
        precision: Number format that the model ran in.
        nfe: Network evaluations that a sample took, those of guidance included; a whole number if all took the same.
        saturated: Share of the values of finite samples that are at an end of their range; None for real numbers.
    """

    samples: Tensor
    features: Features | None
    broken: int
    seconds: float
    extract_seconds: float
    device: torch.device
    precision: str
    nfe: float
    saturated: float | None


def draw(
    sampling: Sampling, make_trainer: Callable[..., Trainer], n: int, batch_size: int, *, show: bool = True
) -> SampleSet | None:
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
        found = trainer.predict(sampling, _Share(chunks, trainer), return_predictions=True)
    except SystemExit as stop:
        # Lightning ends a process after Ctrl-C with exit code 1, as if something had failed.
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise stop.__context__ from None
        raise
    batches, rows = cast(list[SampleBatch], found or []), sampling.rows
    if trainer.world_size > 1:
        shares: list[tuple[list[SampleBatch], int]] | None = (
            [([], 0)] * trainer.world_size if trainer.is_global_zero else None
        )
        torch.distributed.gather_object((batches, rows), shares)
        if shares is None:
            return None
        batches = [batch for share, _ in shares for batch in share]
        rows = sum(count for _, count in shares)
    batches.sort(key=lambda batch: int(batch.numbers[0]))
    finite = torch.cat([batch.finite for batch in batches])
    features = None
    if sampling.extraction is not None:
        outputs = (batch.outputs for batch in batches)
        names = [*sampling.extraction.outputs, *agreement_names(sampling.model.conditioners)]
        names += [TEXT_SCORES] if sampling.text_scores else []
        features = Features.collect(outputs, sampling.requests.classes(n), names)
        features = features if bool(finite.all()) else features.take(finite)
    return SampleSet(
        samples=torch.cat([batch.samples for batch in batches]),
        features=features,
        broken=int((~finite).sum()),
        seconds=bar.seconds - sampling.extract_seconds,
        extract_seconds=sampling.extract_seconds,
        device=trainer.strategy.root_device,
        precision=str(trainer.precision),
        nfe=rows // n if rows % n == 0 else rows / n,
        saturated=_saturated(batches, finite, math.prod(sampling.model.dataset.stored)),
    )


def _saturated(batches: Sequence[SampleBatch], finite: Tensor, values: int) -> float | None:
    """The share of saturated values of the finite samples, which have so many values each."""
    counts = [batch.saturated for batch in batches if batch.saturated is not None]
    return int(torch.cat(counts)[finite].sum()) / (int(finite.sum()) * values) if counts and finite.any() else None


class _Share:
    """Every ranks-th chunk; the rank is known only once the processes run."""

    def __init__(self, chunks: tuple[Tensor, ...], trainer: Trainer) -> None:
        self.chunks = chunks
        self.trainer = trainer

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.chunks[self.trainer.global_rank :: self.trainer.world_size])

    def __len__(self) -> int:
        return len(self.chunks[self.trainer.global_rank :: self.trainer.world_size])
