"""Samples of a finished fit, drawn anew: with other settings than those it was evaluated with, and without training.

Number i is a function of (weights, sampler, guidance, seed, i) only. With a cell's own settings it is the very image i
that was scored; on another device, or in batches of another size, a pixel may be rounded otherwise.
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor
from tqdm import tqdm

from diffsweep.data.modality import Modality
from diffsweep.diffusion import Denoise, Sampler, Schedule
from diffsweep.diffusion.level import Level
from diffsweep.diffusion.sampler_check import check_sampler
from diffsweep.messages import say
from diffsweep.runs import given_pictures, weak_model
from diffsweep.runs.autoencoder import finished_dataset
from diffsweep.runs.build import evaluation_settings, make_guidance, trainer_settings, training_settings
from diffsweep.runs.instantiate import make, make_conditioners
from diffsweep.runs.load_fit import finished, weights_choice
from diffsweep.scoring.sample_files import GRID, POINTS, draw_steps, write_one, write_samples
from diffsweep.scoring.sampling import Model, Sampling, draw
from diffsweep.settings import NO_CHOICE, NO_PICTURES, GivenPictures, SampleChoice
from diffsweep.sweep.store.record import Fit
from diffsweep.trainer import make_trainer

SETTINGS = "settings.json"
SHEET = "grid.png"
# Files that show many samples at once.
SHEETS = (SHEET, "grid.gif", "grid.wav", "trajectory.gif")
FRAMES = 60

# Names of the files that `write` makes.
_OURS = re.compile(
    rf"\d{{6,}}\.(png|gif|wav)|grid\.(png|gif|wav)|samples\.np[yz]|trajectory\.gif|{re.escape(SETTINGS)}"
)


@dataclass(frozen=True)
class FreshSamples:
    """Samples of a finished fit that were drawn anew.

    Attributes:
        modality: what kind of data they are.
        samples: as stored data are, as uint8 (N, C, H, W) or float points (N, 2), on the CPU; one that is not finite is
            grey, silent, or the origin.
        broken: how many are not finite.
        nfe: network evaluations that a sample took, those of guidance included.
        seconds: that drawing them took.
        device: where they were drawn.
        precision: number format that the model ran in: that of the config, or what the device has in its place.
        frames: of the first few samples: the state before each step and the x0 at which the step aims, as `samples`;
            the last frame has the samples on both sides. At most `FRAMES`, evenly over the steps.
        labels: that the samples were asked to show, int64 (N,); None if there were none.
        requests: what each was asked for, as of `Requests.listed`.
    """

    modality: Modality
    samples: Tensor
    broken: int
    nfe: float
    seconds: float
    device: torch.device
    precision: str
    frames: list[tuple[Tensor, Tensor]]
    labels: Tensor | None = None
    requests: Mapping[str, Any] = field(default_factory=dict)

    def pictures(self) -> list[tuple[Tensor, Tensor]]:
        """The frames as pictures of the samples, uint8 (N, 1 or 3, height, width); those of points as they are."""
        picture = self.modality.picture
        return self.frames if picture is None else [(picture(left), picture(right)) for left, right in self.frames]


def resample(
    cfg: DictConfig,
    fit: Fit,
    n: int,
    *,
    seed: int,
    follow: bool = False,
    show: bool = True,
    points: int | None = None,
    choice: SampleChoice = NO_CHOICE,
    given: GivenPictures = NO_PICTURES,
) -> FreshSamples:
    """Samples 0 ... n - 1 of a finished fit.

    Args:
        cfg: a frozen config of the fit, or of one of its cells, with what is to be otherwise; no training or metric of
            it is looked at.
        fit: which one.
        n: how many, >= 1.
        seed: sample seed, as ``evaluation.seed``.
        follow: whether to keep frames of the first samples, 100 images or 2,000 points.
        show: whether to draw a bar when standard error is a terminal.
        points: how many instead of n, if they are points; None for n as well.
        choice: what the samples are asked for in the place of what those of an evaluation are.
        given: pictures that samples are made of.

    Raises:
        ValueError: for a bad value, or choices that do not go together.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"{n} samples cannot be drawn: ask for a whole number, 1 or more")
    runs = fit.folder.parent.parent
    denoiser = finished(runs, fit.signature, weights=weights_choice(cfg))
    try:
        model = Model(denoiser, denoiser.schedule, finished_dataset(cfg, runs), make_conditioners(cfg))
        sampler: Sampler = make(cfg, "sampler")
        if (warning := check_sampler(sampler, model.schedule)) is not None:
            say(warning)
        editing = given_pictures.editing(given, model.dataset)
        sampler = editing.sampler(sampler)
        earlier = None
        if cfg.guidance.get("weak") == weak_model.SELF:
            earlier = finished(runs, fit.signature, weights=weak_model.earlier_weights(cfg, training_settings(cfg)))
        guidance = make_guidance(cfg, model, sampler, earlier)
        most = POINTS if model.dataset.modality.picture is None else GRID
        n = points if points is not None and model.dataset.modality.picture is None else n
        recording = _RecordingSampler(sampler, model.schedule, model.decode, most)
        settings = trainer_settings(cfg)
        drawing = cast(Sampler, recording) if follow else sampler
        sampling = Sampling(model, drawing, seed, guidance, trainer=settings.uncompiled())
        sampling.ask(choice)
        sampling.requests = replace(sampling.requests, pictures=given_pictures.like_pictures(given, model.dataset))
        sampling.editing = editing
        trainer = functools.partial(make_trainer, settings, runs, exact=False, logger=False)
        batch_size = evaluation_settings(cfg).batch_size
    except (AttributeError, TypeError, RuntimeError, LookupError, OmegaConfBaseException) as error:
        raise ValueError(f"this configuration cannot be built: {' '.join(str(error).split())}") from error
    drawn = draw(sampling, trainer, n, batch_size, show=show)
    assert drawn is not None
    return FreshSamples(
        modality=model.dataset.modality,
        samples=drawn.samples,
        broken=drawn.broken,
        nfe=drawn.nfe,
        seconds=drawn.seconds,
        device=drawn.device,
        precision=drawn.precision,
        frames=recording.frames(),
        labels=sampling.requests.labels(n),
        requests=sampling.requests.listed(n),
    )


@dataclass(eq=False)
class _RecordingSampler:
    """A sampler that keeps what the first samples go through."""

    sampler: Sampler
    schedule: Schedule
    decode: Callable[[Tensor], Tensor]
    most: int
    kept: dict[int, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)
    rows: int = 0

    def levels(self, schedule: Schedule) -> list[Level]:
        return self.sampler.levels(schedule)

    def __call__(self, denoise: Denoise, noise: Tensor, **settings: Any) -> Tensor:
        rows = min(self.most - self.rows, len(noise))
        self.rows += rows
        steps = len(self.sampler.legs(self.schedule))
        # Both ends, and what lies evenly between.
        wanted = {round(steps * i / (FRAMES - 1)) for i in range(FRAMES)}
        x, shown = noise, noise[:rows]
        for step in self.sampler.trajectory(denoise, noise, **settings):
            if step.index in wanted and rows:
                self._keep(step.index, shown, step.x0[:rows])
            x = step.x
            # At each level as spread out as data or noise are: a state of variance 80^2 is not white.
            shown = x[:rows] / math.hypot(step.level.alpha, step.level.sigma)
        if rows:
            self._keep(steps, x[:rows], x[:rows])
        return x

    def _keep(self, index: int, *pair: Tensor) -> None:
        left, right = (self.decode(x.float().nan_to_num(0, 0, 0)).cpu() for x in pair)
        self.kept.setdefault(index, []).append((left, right))

    def frames(self) -> list[tuple[Tensor, Tensor]]:
        batches = [zip(*self.kept[index], strict=True) for index in sorted(self.kept)]
        return [(torch.cat(left), torch.cat(right)) for left, right in batches]


def check_folder(folder: Path) -> None:
    """Refuse a folder in which there is anything but what `write` once put there, or that cannot be made.

    Raises:
        ValueError: naming what is in the way.
    """
    place = folder.absolute()
    there = next(one for one in (place, *place.parents) if one.exists())
    if not there.is_dir():
        raise ValueError(f"{there} is a file: choose another folder with --out")
    if not os.access(there, os.W_OK):
        raise ValueError(f"{there} cannot be written to: choose another folder with --out")
    if there != place:
        return
    names = sorted(path.name for path in folder.iterdir())
    foreign = [name for name in names if not _OURS.fullmatch(name)] or (names if SETTINGS not in names else [])
    if foreign:
        raise ValueError(f"{folder} is not empty ({foreign[0]} lies there): choose another folder with --out")


def write(drawn: FreshSamples, folder: Path, settings: Mapping[str, Any], *, show: bool = True) -> dict[str, Path]:
    """Make a folder of samples, whole or not at all, in the place of one that was made so before.

    Images: 000000.png ..., grid.png (the first 100), samples.npz (uint8, arr_0, (N, H, W, C); arr_1 has the labels that
    were asked for, (N,), if any were). Videos: 000000.gif ..., grid.png of filmstrips, grid.gif. Sounds: 000000.wav
    ..., grid.png of spectrograms, grid.wav (the first 16); their arrays have the channels last too. Points: grid.png
    (all), samples.npy (float32, (N, 2)). With frames also trajectory.gif: states on the left, aims on the right.

    Args:
        drawn: what to write.
        folder: where.
        settings: to be recorded in settings.json.
        show: whether to draw a bar when standard error is a terminal.

    Returns:
        Paths of what a reader wants to know of, by what they are: pictures, numbers, and so on.

    Raises:
        ValueError: as `check_folder`.
        OSError: if it cannot be written.
    """
    folder = Path(folder).resolve()
    check_folder(folder)
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    part.mkdir(parents=True)
    try:
        cloud = drawn.modality.picture is None
        shown = drawn.samples if cloud else drawn.samples[:GRID]
        names = {"pictures": SHEET, "numbers": _write_array(drawn, part, show)}
        names |= {_TITLES[path.suffix]: path.name for path in write_samples(drawn.modality, shown, part / SHEET)}
        if drawn.frames:
            draw_steps(drawn.modality, drawn.frames, part / "trajectory.gif")
            names["animation"] = "trajectory.gif"
        (part / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            before = part.with_name(f"{part.name}-before")
            folder.rename(before)
            part.rename(folder)
            shutil.rmtree(before)
        else:
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return {title: folder / name for title, name in names.items()}


# What is written beside the pictures.
_TITLES = {".gif": "videos", ".wav": "sounds"}


def _write_array(drawn: FreshSamples, folder: Path, show: bool) -> str:
    samples = drawn.samples
    if drawn.modality.picture is None:
        np.save(folder / "samples.npy", samples.numpy())
        return "samples.npy"
    for number in tqdm(range(len(samples)), "writing", unit="img", disable=None if show else True, leave=False):
        write_one(drawn.modality, samples[number], folder / f"{number:06d}")
    array = samples.movedim(1, -1).contiguous().numpy()
    np.savez(folder / "samples.npz", array, *([] if drawn.labels is None else [drawn.labels.numpy()]))
    return "samples.npz"
