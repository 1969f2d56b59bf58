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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from diffsweep.data.modality import IMAGES
from diffsweep.diffusion import Denoise, Sampler, Schedule
from diffsweep.diffusion.level import Level
from diffsweep.diffusion.sampler_check import check_sampler
from diffsweep.evaluation.pictures import animation, grid
from diffsweep.messages import say
from diffsweep.runs.build import evaluation_settings, make_guidance, trainer_settings
from diffsweep.runs.instantiate import label_count, make
from diffsweep.runs.load_fit import finished, weights_choice
from diffsweep.scoring.sampling import Model, Sampling, draw
from diffsweep.scoring.score import GRID
from diffsweep.sweep.store.record import Fit
from diffsweep.trainer import make_trainer

SETTINGS = "settings.json"
SHEET = "grid.png"
FRAMES = 60
POINTS = 2000

# Names of the files that `write` makes.
_OURS = re.compile(rf"\d{{6,}}\.png|grid\.png|samples\.np[yz]|trajectory\.gif|{re.escape(SETTINGS)}")


@dataclass(frozen=True)
class FreshSamples:
    """Samples of a finished fit that were drawn anew.

    Attributes:
        samples: uint8 (N, C, H, W), or float points (N, 2), on the CPU; one that is not finite is grey, or the origin.
        broken: how many are not finite.
        nfe: network evaluations that a sample took, those of guidance included.
        seconds: that drawing them took.
        device: where they were drawn.
        precision: number format that the model ran in: that of the config, or what the device has in its place.
        frames: of the first few samples: the state before each step and the x0 at which the step aims, as `samples`;
            the last frame has the samples on both sides. At most `FRAMES`, evenly over the steps.
        labels: that the samples were asked to show, int64 (N,); None if there were none.
    """

    samples: Tensor
    broken: int
    nfe: float
    seconds: float
    device: torch.device
    precision: str
    frames: list[tuple[Tensor, Tensor]]
    labels: Tensor | None = None


def resample(cfg: DictConfig, fit: Fit, n: int, *, seed: int, follow: bool = False, show: bool = True) -> FreshSamples:
    """Samples 0 ... n - 1 of a finished fit.

    Args:
        cfg: a frozen config of the fit, or of one of its cells, with what is to be otherwise; no training or metric of
            it is looked at.
        fit: which one.
        n: how many, >= 1.
        seed: sample seed, as ``evaluation.seed``.
        follow: whether to keep frames of the first samples, 100 images or 2,000 points.
        show: whether to draw a bar when standard error is a terminal.

    Raises:
        ValueError: for a bad value, or choices that do not go together.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"{n} samples cannot be drawn: ask for a whole number, 1 or more")
    runs = fit.folder.parent.parent
    denoiser = finished(runs, fit.signature, weights=weights_choice(cfg))
    try:
        model = Model(denoiser, denoiser.schedule, make(cfg, "dataset"), conditional=bool(label_count(cfg)))
        sampler: Sampler = make(cfg, "sampler")
        if (warning := check_sampler(sampler, model.schedule)) is not None:
            say(warning)
        guidance = make_guidance(cfg, model, sampler)
        most = GRID if model.dataset.modality == IMAGES else POINTS
        recording = _RecordingSampler(sampler, model.schedule, model.decode, most)
        sampling = Sampling(model, cast(Sampler, recording) if follow else sampler, seed, guidance)
        trainer = functools.partial(make_trainer, trainer_settings(cfg), runs, exact=False, logger=False)
        batch_size = evaluation_settings(cfg).batch_size
    except (AttributeError, TypeError, RuntimeError, LookupError, OmegaConfBaseException) as error:
        raise ValueError(f"this configuration cannot be built: {' '.join(str(error).split())}") from error
    drawn = draw(sampling, trainer, n, batch_size, show=show)
    assert drawn is not None
    return FreshSamples(
        samples=drawn.samples,
        broken=drawn.broken,
        nfe=drawn.nfe,
        seconds=drawn.seconds,
        device=drawn.device,
        precision=drawn.precision,
        frames=recording.frames(),
        labels=sampling.known_labels(n),
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


def write(drawn: FreshSamples, folder: Path, settings: Mapping[str, Any], *, show: bool = True) -> list[Path]:
    """Make a folder of samples, whole or not at all, in the place of one that was made so before.

    Images: 000000.png ..., grid.png (the first 100), samples.npz (uint8, arr_0, (N, H, W, C); arr_1 has the labels that
    were asked for, (N,), if any were). Points: grid.png (all), samples.npy (float32, (N, 2)). With frames also
    trajectory.gif: states on the left, the x0 aimed at on the right.

    Args:
        drawn: what to write.
        folder: where.
        settings: to be recorded in settings.json.
        show: whether to draw a bar when standard error is a terminal.

    Returns:
        Paths of what a reader wants to know of: the grid, the array, the animation if there is one.

    Raises:
        ValueError: as `check_folder`.
        OSError: if it cannot be written.
    """
    folder = Path(folder).resolve()
    check_folder(folder)
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    part.mkdir(parents=True)
    try:
        names = [SHEET, _write_array(drawn, part, show)]
        grid(drawn.samples[:GRID] if drawn.samples.ndim == 4 else drawn.samples, part / SHEET)
        if drawn.frames:
            animation(drawn.frames, part / "trajectory.gif")
            names.append("trajectory.gif")
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
    return [folder / name for name in names]


def _write_array(drawn: FreshSamples, folder: Path, show: bool) -> str:
    samples = drawn.samples
    if samples.ndim == 2:
        np.save(folder / "samples.npy", samples.numpy())
        return "samples.npy"
    array = samples.permute(0, 2, 3, 1).contiguous().numpy()
    bar = tqdm(array, "writing", unit="img", disable=None if show else True, leave=False)
    for number, image in enumerate(bar):
        Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(folder / f"{number:06d}.png")
    np.savez(folder / "samples.npz", array, *([] if drawn.labels is None else [drawn.labels.numpy()]))
    return "samples.npz"
