"""Typed settings of a run, made once from the composed config in `runs/`: nothing below `runs/` reads the config."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from diffsweep.mistakes import BadValue, above, flag, one_of, share, whole

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


@dataclass(frozen=True)
class LoadingSettings:
    """How training data come to the device; no result depends on it.

    Attributes:
        resident: Share of the device's free memory, in [0, 1], that data may take: what needs more is read ahead.
        workers: Threads that read ahead and decode, >= 1; None for one a core, at most 8.
        prefetch: Batches that lie ready before they are needed, >= 1, besides one in work for each thread.

    Raises:
        ValueError: for a value out of range.
    """

    resident: float = 0.25
    workers: int | None = None
    prefetch: int = 4

    def __post_init__(self) -> None:
        share("trainer.loading.resident", self.resident)
        if self.workers is not None:
            whole("trainer.loading.workers", self.workers, 1)
        whole("trainer.loading.prefetch", self.prefetch, 1)

    @property
    def threads(self) -> int:
        """How many threads read ahead."""
        return self.workers if self.workers is not None else min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class TrainerSettings:
    """Where and how a run computes: what Lightning's trainer is made of, and how often a training is recorded.

    Attributes:
        accelerator: Lightning's name of the kind of device, as cpu or gpu.
        devices: How many, or which.
        num_nodes: Number of machines.
        strategy: Lightning's name of how devices work together.
        precision: Lightning's name of the number format.
        deterministic: Whether kernels must be repeatable; "warn" where they can be.
        compile: What torch.compile is used for: True, the network while it is trained; "step", everything from stored
            data to the loss as one, and the network while sampling; "blocks", the network's repeated blocks in both.
        threads: CPU threads, >= 1; None leaves torch's choice.
        checkpoint_seconds: Time between checkpoints, > 0.
        log_every: Steps between lines of metrics.jsonl, >= 1.
        progress: Whether bars are drawn when standard error is a terminal.
        loading: How training data come to the device.
        randomness: Where times, noise, mirrored images and dropped labels are drawn: "host", by torch's generators on
            the CPU, or "device", by a counter. The numbers differ.
        cuda_graphs: Whether the kernels of what is compiled are recorded and replayed, on a GPU.
        channels_last: Whether images lie in memory with their channels last.
        fused: Whether the optimizer's update is one kernel, if it has such a one.
        activation_checkpointing: Whether activations of the network's repeated blocks are computed again in the
            backward pass: less memory, and a fourth to a third more time.

    Raises:
        ValueError: for a value out of range.
    """

    accelerator: str
    devices: int | str | list[int]
    num_nodes: int
    strategy: str
    precision: str
    deterministic: bool | Literal["warn"]
    compile: bool | Literal["step", "blocks"]
    threads: int | None
    checkpoint_seconds: float
    log_every: int
    progress: bool
    loading: LoadingSettings = LoadingSettings()
    randomness: Literal["host", "device"] = "host"
    cuda_graphs: bool = False
    channels_last: bool = False
    fused: bool = False
    activation_checkpointing: bool = False

    def uncompiled(self) -> TrainerSettings:
        """The same without compilation, for a few samples between two steps of a training."""
        return replace(self, compile=False, cuda_graphs=False)

    def __post_init__(self) -> None:
        whole("trainer.log_every", self.log_every, 1)
        if self.threads is not None:
            whole("trainer.threads", self.threads, 1)
        if self.compile not in ("step", "blocks") and not isinstance(self.compile, bool):
            raise BadValue("trainer.compile", self.compile, "must be true or false, step or blocks")
        for key in ("progress", "cuda_graphs", "channels_last", "fused", "activation_checkpointing"):
            flag(f"trainer.{key}", getattr(self, key))
        one_of("trainer.randomness", self.randomness, ("host", "device"))
        if self.cuda_graphs and not self.compile:
            raise BadValue("trainer.cuda_graphs", True, "needs trainer.compile=true, step or blocks")
        above("trainer.checkpoint_seconds", self.checkpoint_seconds)


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained: what the steps are and how the optimizer is driven.

    Attributes:
        steps: Training steps, >= 1.
        batch_size: Examples per step over all devices, >= 1.
        warmup: Steps over which the learning rate rises linearly from 0.
        decay: Course of the learning rate after that: constant, linear or cosine, down to 0 at the last step; or the
            share of the optimizer's rate as a function of the steps since then (group `training/decay`).
        clip: Largest gradient norm, > 0; None leaves gradients alone.
        flip: Whether images are mirrored at random.
        ema_decay: Decay of the averaged weights, in [0, 1).
        seed: Training seed.
        averages: Relative standard deviations of the power-function averages that are kept for `weights.ema`, of which
            any length between can be made after the training; None keeps none.
        snapshots: How often they are kept, evenly over the training, >= 1.
        keep: Steps of which all averages are kept, for `weights.step`; below 1 as a share of `steps`.
        accumulate: In how many parts a step goes through the network, each of which takes that much less memory, >= 1;
            they must divide each device's share of the batch.
        weight_decay: Which weights the optimizer's decay is for: "all", or "matrices", which leaves out biases, norms,
            other vectors and embeddings.

    Raises:
        ValueError: for a value out of range.
    """

    steps: int
    batch_size: int
    warmup: int
    decay: str | Callable[[int], float]
    clip: float | None
    flip: bool
    ema_decay: float
    seed: int
    averages: Sequence[float] | None = None
    snapshots: int = 16
    keep: Sequence[int | float] = ()
    accumulate: int = 1
    weight_decay: Literal["all", "matrices"] = "all"

    def __post_init__(self) -> None:
        whole("seed", self.seed)
        for key, value, least in (
            ("steps", self.steps, 1),
            ("batch_size", self.batch_size, 1),
            ("warmup", self.warmup, 0),
        ):
            whole(f"training.{key}", value, least)
        if not callable(self.decay):
            one_of("training.decay", self.decay, DECAYS)
        if self.clip is not None:
            above("training.clip", self.clip, why="null leaves gradients alone")
        flag("training.flip", self.flip)
        share("ema.decay", self.ema_decay, one=False)
        whole("training.snapshots", self.snapshots, 1)
        whole("training.accumulate", self.accumulate, 1)
        one_of("training.weight_decay", self.weight_decay, ("all", "matrices"))
        if self.batch_size % self.accumulate:
            raise BadValue(
                "training.accumulate", self.accumulate, f"does not divide training.batch_size={self.batch_size}"
            )
        for i, std in enumerate(self.averages or ()):
            relative_std(f"training.averages[{i}]", std)
        for i, step in enumerate(self.keep):
            if isinstance(step, float) and 0 < step < 1:
                continue
            whole(f"training.keep[{i}]", step, 1, self.steps)

    @property
    def kept_steps(self) -> tuple[int, ...]:
        """`keep` as numbers of steps."""
        return tuple(max(1, round(step * self.steps)) if isinstance(step, float) else step for step in self.keep)

    @property
    def snapshot_steps(self) -> set[int]:
        """After which steps power-function averages are kept; the last is one of them."""
        even = {round(self.steps * i / self.snapshots) for i in range(1, self.snapshots + 1)}
        return {*even, *self.kept_steps} - {0}

    def learning_rate_factor(self, step: int) -> float:
        """The learning rate of a step, as a share of the optimizer's."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if callable(self.decay):
            return rise * self.decay(max(0, step - self.warmup))
        done = min(1.0, max(0.0, (step - self.warmup) / max(1, self.steps - self.warmup)))
        return rise * DECAYS[self.decay](done)


def relative_std(name: str, value: object) -> float:
    """`value` if a power-function average can have that relative standard deviation; else raises BadValue."""
    std, longest = above(name, value), 12**-0.5
    if std >= longest:
        raise BadValue(name, value, f"must be below {longest:.3f}, where all steps count alike")
    return std


DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
}


@dataclass(frozen=True)
class SampleChoice:
    """What samples are asked for in turn in the place of what follows from their numbers, and what is led away from.

    Attributes:
        labels: Classes.
        negative_label: The class that guidance leads away from; None for none.
        prompts: Texts.
        negative_prompt: The text that guidance leads away from; None for none.
    """

    labels: Sequence[int] = ()
    negative_label: int | None = None
    prompts: Sequence[str] = ()
    negative_prompt: str | None = None


# What follows from their numbers.
NO_CHOICE = SampleChoice()


@dataclass(frozen=True)
class EvaluationSettings:
    """Which samples are drawn of a trained model, and which real data they are compared with.

    Attributes:
        samples: How many, >= 2.
        batch_size: How many at a time on a device, >= 1; changes speed and memory only.
        seed: Sample seed.
        reference: Split of the real data that samples are compared with; the other one gives the floor.
        reference_samples: How many of them at most, >= 2, chosen at random once and for all; None for all.
        cache: Folder of what is computed of real data.
        prompts: Texts that samples are asked for in turn; None for what held-out examples show.

    Raises:
        ValueError: for a value out of range, or a split that does not exist.
    """

    samples: int
    batch_size: int
    seed: int
    reference: Split
    cache: Path
    reference_samples: int | None = None
    prompts: Sequence[str] | None = None

    def __post_init__(self) -> None:
        whole("evaluation.seed", self.seed)
        whole("evaluation.batch_size", self.batch_size, 1)
        whole("evaluation.samples", self.samples, 2)
        one_of("evaluation.reference", self.reference, SPLITS)
        if self.reference_samples is not None:
            whole("evaluation.reference_samples", self.reference_samples, 2)

    @property
    def choice(self) -> SampleChoice:
        """What samples are asked for in the place of what follows from their numbers."""
        return SampleChoice(prompts=self.prompts or ())

    @property
    def held_out_split(self) -> Split:
        """The split that is not the reference."""
        return next(split for split in SPLITS if split != self.reference)


@dataclass(frozen=True)
class GivenPictures:
    """Paths of pictures, and what is done with them; sample i has to do with picture i, then from the first again.

    Attributes:
        like: whose edges, or coarser version, samples are asked for.
        start: from which samples start, under noise.
        strength: share of the sampler's steps that are taken from there, in (0, 1].
        inpaint: of which a part is kept.
        mask: that says which: what is white in it is painted anew.

    Raises:
        ValueError: for a strength out of range, or one of `inpaint` and `mask` without the other.
    """

    like: Sequence[str] = ()
    start: Sequence[str] = ()
    strength: float = 0.6
    inpaint: Sequence[str] = ()
    mask: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise BadValue("strength", self.strength, "must be above 0 and at most 1 (from pure noise)")
        if self.inpaint and self.mask is None:
            raise ValueError("--inpaint needs a mask: give one as --mask PICTURE, in which white is painted anew")
        if self.mask is not None and not self.inpaint:
            raise ValueError("--mask says what is painted anew of a picture: give that as --inpaint PICTURE")

    def __bool__(self) -> bool:
        return bool(self.like or self.start or self.inpaint)

    def settings(self) -> dict[str, Any]:
        """What is recorded with the samples."""
        found: dict[str, Any] = {"like": list(self.like), "start": list(self.start), "inpaint": list(self.inpaint)}
        return found | {"mask": self.mask, "strength": self.strength if self.start else None}


NO_PICTURES = GivenPictures()
