"""Images, videos or sounds that somebody else made, measured as a run's samples are, and recorded as a cell.

No model is known, so the images' content stands in its place: it names their fit, in which nothing was trained. The
cell is named by that, the real data and what of the config shapes an evaluation.

Files often lie class by class. The images are therefore looked at in an order that is fixed by their number alone and
otherwise random: any first N of them, and each block of the jackknife, then stand for all.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor
from tqdm import tqdm

from diffsweep.data.examples import Dataset, Split
from diffsweep.data.modality import IMAGES, Modality
from diffsweep.evaluation.evaluate import Evaluation
from diffsweep.evaluation.extractor import Extractor
from diffsweep.evaluation.features import Features
from diffsweep.evaluation.images import Images, read_images
from diffsweep.messages import say
from diffsweep.runs.build import evaluation_settings, make_evaluation, trainer_settings
from diffsweep.runs.foreign_clips import read_clips
from diffsweep.runs.instantiate import make
from diffsweep.runs.resample import SETTINGS, SHEETS
from diffsweep.scoring.measure import measure
from diffsweep.scoring.sample_files import GRID, write_samples
from diffsweep.scoring.saturation import saturated_share
from diffsweep.settings import EvaluationSettings
from diffsweep.sweep.store.lease import Lease
from diffsweep.sweep.store.process import Process
from diffsweep.sweep.store.record import Cell, Run, provenance
from diffsweep.sweep.store.result import GivenImages, Result
from diffsweep.trainer import make_trainer


@dataclass(frozen=True, eq=False)
class Pictures:
    """Real images as a dataset without splits: all of them are the reference, and none are left for a floor.

    To hold some back would move the number away from that which everybody else gets with the same folder.

    Attributes:
        name: as results call the dataset.
        images: all of them.
    """

    name: str
    images: Images

    @property
    def stored(self) -> tuple[int, ...]:
        """Shape of one image, (C, H, W)."""
        return self.images.shape

    @property
    def modality(self) -> Modality:
        """Images."""
        return IMAGES

    def load(self, split: Split) -> Images:
        """All images for `train`, none for `test`."""
        return self.images if split == "train" else self.images.take(torch.arange(0))


@dataclass(frozen=True, eq=False)
class External:
    """Images that are ready to be measured.

    Attributes:
        cfg: composed config with the number of images in it.
        images: of the shape of the real data.
        order: numbers of those to look at, int64 (N,).
        name: of the images, as the user calls them.
        dataset: of the real data, and `choice` its name in results.
        evaluation: what is measured; its extractor on the CPU.
        counts: what of images, real data and config the result depends on; the cell's name is its hash.
        settings: which of the real data are the reference, and where what is computed of them is kept.
        given: what of the config was asked for, to be recorded.
        source: where the images were found.
    """

    cfg: DictConfig
    images: Images
    order: Tensor
    name: str
    dataset: Dataset | Pictures
    choice: str
    evaluation: Evaluation
    counts: dict[str, Any]
    settings: EvaluationSettings
    given: Sequence[str]
    source: str

    @classmethod
    def of(
        cls,
        cfg: DictConfig,
        images: Images,
        name: str,
        reference: str | Pictures,
        samples: int | None = None,
        given: Sequence[str] = (),
        source: str = "",
    ) -> External:
        """Check what can be checked before anything is measured or written.

        Args:
            cfg: composed config.
            images: what is to be measured.
            name: of the images; the table tells them apart by it.
            reference: name of the config's dataset as results have it, or real images to take its place.
            samples: how many images to measure; None for all.
            given: overrides of the config that were asked for.
            source: where the images were found.

        Raises:
            ValueError: for images that are not like the real ones or do not fit the extractor, too few of them, a name
                that a table cannot show.
        """
        if not name.strip() or not name.isprintable() or "=" in name:
            raise ValueError(f"the name {name!r} cannot stand in a table: choose another with --name")
        real = () if isinstance(reference, str) else ((reference.name, reference.images),)
        for called, some in ((name, images), *real):
            if len(some) < 2:
                raise ValueError(f"{called} is one image only, and a distance needs 2")
        wanted = len(images) if samples is None else samples
        if not 2 <= wanted <= len(images):
            raise ValueError(
                f"{wanted} samples of {name} cannot be measured: there are {len(images)} images, and a distance needs 2"
            )
        cfg = copy.deepcopy(cfg)
        dataset = real_data(cfg) if isinstance(reference, str) else reference
        with _explained():
            cfg.evaluation.samples = wanted
            evaluation, settings = make_evaluation(cfg, dataset), evaluation_settings(cfg)
        if not isinstance(reference, str) and settings.reference != "train":
            raise ValueError(f"evaluation.reference={settings.reference}: the images of {dataset.name} have no splits")
        images, dataset = _alike(images, name, dataset)
        images = dataclasses.replace(images, class_labels=_known_labels(images, name, dataset))
        _fits(evaluation.extractor, images)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:wanted]
        choice = reference if isinstance(reference, str) else reference.name
        counts = _counts(cfg, images, dataset)
        return cls(
            cfg=cfg,
            images=images,
            order=order,
            name=name,
            dataset=dataset,
            choice=choice,
            evaluation=evaluation,
            counts=counts,
            settings=settings,
            given=given,
            source=source,
        )

    @property
    def cell(self) -> Cell:
        """Where the result is recorded."""
        runs = Path(self.cfg.paths.runs)
        fit = Run.of({"external": self.counts["external"]}, runs=runs).fit
        return fit.cell(Run.of(self.counts, runs=runs).cell.signature)

    def evaluate(self, *, force: bool = False, show: bool = True) -> Result:
        """The result, which is measured and recorded unless it is there already.

        Args:
            force: whether to measure what is recorded already.
            show: whether to draw bars when standard error is a terminal.

        Raises:
            ValueError: if the real data cannot be read, or the devices of the config are not there.
        """

        def waiting(holder: Process | None) -> None:
            say(f"{self.name} is being evaluated by {holder}; waiting for it")

        device = make_trainer(
            trainer_settings(self.cfg), self.cell.folder, exact=False, logger=False
        ).strategy.root_device
        with Lease(self.cell.folder).acquire(on_wait=waiting):
            done = None if force else self.cell.result()
            if done is None:
                self._record(self._measure(device, show))
                done = self.cell.result()
        assert done is not None
        return done

    def _measure(self, device: torch.device, show: bool) -> Result:
        started = time.monotonic()
        there = dataclasses.replace(self.evaluation, extractor=self.evaluation.extractor.to(device))
        class_labels = None if self.images.class_labels is None else self.images.class_labels[self.order]
        features = Features.collect(self._batches(there.extractor, show), class_labels, there.outputs)
        extracted = time.monotonic()
        saturated = saturated_share(self.images.x[part] for part in self.order.split(self.settings.batch_size))
        labelled = class_labels is not None
        measurement = measure(
            self.dataset, there, self.settings, features, 0, balanced=labelled, saturated=saturated, show=show
        )
        finished = time.monotonic()
        if isinstance(self.dataset, Pictures):
            notes = [measurement.note] if measurement.note else []
            if self.counts["dataset"]["images"] == self.counts["external"]["images"]:
                notes.insert(0, "these are the very images that they are compared with")
            measurement = dataclasses.replace(measurement, reference_split=None, note="; ".join(notes) or None)
        resized = [] if self.images.resize == "none" else [f"images.size={self.images.shape[-1]}"]
        return Result.of(
            self.cell.signature,
            self.cell.fit.signature,
            [f"images={self.name}", *resized, *self.given],
            {"dataset": self.choice},
            measurement,
            evaluate_seconds=finished - started,
            extract_seconds=extracted - started,
            grid=self.cell.samples_file.name,
            images=GivenImages(
                name=self.name,
                source=self.source,
                digest=self.counts["external"]["images"][:12],
                available=len(self.images),
                resize=self.images.resize,
                skipped=self.images.skipped,
            ),
        )

    def _batches(self, extractor: Extractor, show: bool) -> Iterator[dict[str, Tensor]]:
        bar = tqdm(
            desc=self.name,
            total=len(self.order),
            unit="img",
            disable=None if show else True,
            dynamic_ncols=True,
            leave=False,
        )
        with bar:
            for numbers in self.order.split(self.settings.batch_size):
                yield extractor(self.images.x[numbers])
                bar.update(len(numbers))

    def _record(self, result: Result) -> None:
        cell, digest = self.cell, self.counts["external"]["images"]
        fit = cell.fit
        write_samples(self.dataset.modality, self.images.x[self.order[:GRID]], cell.samples_file)
        cell.write_config(self.counts)
        if not fit.done:
            known = {"fit": fit.signature, "external": True, "steps": None, "images_digest": digest}
            fit.write_done(known | provenance())
        cell.write_result(result)


def real_data(cfg: DictConfig) -> Dataset:
    """The dataset of a config. Raises ValueError if it cannot be built."""
    with _explained():
        return make(cfg, "dataset")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (AttributeError, TypeError, RuntimeError, LookupError, OmegaConfBaseException) as error:
        raise ValueError(f"this configuration cannot be built: {' '.join(str(error).split())}") from error


def read(path: str, size: int | None, corrupt: str, real: Dataset | None = None) -> Images:
    """Images from a folder or file, or what else the real data are, saying how many files were left out.

    See `read_images` and `read_clips`.
    """
    # What `diffsweep sample` writes beside its samples shows many of them at once.
    sheets = SHEETS if (Path(path) / SETTINGS).is_file() else ()
    if real is None or real.modality.name not in ("videos", "sounds"):
        images = read_images(path, size=size, corrupt=corrupt, leave_out=sheets)
    else:
        images = read_clips(Path(path), real.modality, real.stored, size=size, corrupt=corrupt, leave_out=sheets)
    for count, what in (
        (images.skipped, "skipped as corrupt"),
        (images.ignored, "ignored: no pictures by their names"),
    ):
        if count:
            say(f"{count} {'file' if count == 1 else 'files'} of {path} {what}")
    return images


def _alike(images: Images, name: str, dataset: Dataset | Pictures) -> tuple[Images, Dataset | Pictures]:
    """Images and real data of one shape; what differs in no value but the number of equal channels is made so."""
    noun = dataset.modality.name
    if noun not in ("images", "videos", "sounds"):
        raise ValueError(f"{dataset.name} is made of {noun}: images, videos and sounds can be read from files")
    if noun != "images":
        if images.shape != tuple(dataset.stored):
            height, width = dataset.stored[-2:]
            how = f"; --size {height} brings them to {height} x {height}" if height == width else ""
            raise ValueError(
                f"the {noun} of {name} are {images.shape}, those of {dataset.name} {tuple(dataset.stored)}{how}"
            )
        return images, dataset
    if isinstance(dataset, Pictures) and images.shape[0] == 1:
        dataset = dataclasses.replace(dataset, images=dataset.images.grey())
    if dataset.stored[0] == 1:
        images = images.grey()
    if images.shape != tuple(dataset.stored):
        height, width = dataset.stored[1:]
        resize = f"; --size {height} brings them to {height} x {height}" if height == width else ""
        how = resize if images.shape[1:] != (height, width) else ": grey and coloured images are not compared"
        raise ValueError(
            f"the images of {name} are {images.shape}, those of {dataset.name} {tuple(dataset.stored)}{how}"
        )
    return images, dataset


def _known_labels(images: Images, name: str, dataset: Dataset | Pictures) -> Tensor | None:
    """What the images show, if that is known of the real ones too."""
    class_labels = images.class_labels
    if class_labels is None or isinstance(dataset, Pictures):
        return class_labels if isinstance(dataset, Pictures) and dataset.images.class_labels is not None else None
    least, most = int(class_labels.min()), int(class_labels.max())
    if least < 0 or most >= dataset.classes:
        raise ValueError(
            f"the labels of {name} go from {least} to {most}, those of {dataset.name} from 0 to {dataset.classes - 1}: "
            "correct them, or leave them out"
        )
    return class_labels


def _fits(extractor: Extractor, images: Images) -> None:
    try:
        extractor(images.x[:2])
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"extractor {extractor.space} does not take images of shape {images.shape}: {str(error).splitlines()[0]}"
        ) from error


def _counts(cfg: DictConfig, images: Images, dataset: Dataset | Pictures) -> dict[str, Any]:
    if isinstance(dataset, Pictures):
        real: Any = {"images": dataset.images.digest()}
    else:
        real = OmegaConf.to_container(cfg.dataset, resolve=True)
    evaluation = OmegaConf.to_container(cfg.evaluation, resolve=True)
    return {"external": {"images": images.digest()}, "dataset": real, "evaluation": evaluation}
