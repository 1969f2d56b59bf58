"""Mirrors of the record: Lightning's own CSV and TensorBoard loggers, and a W&B run per fit and per cell.

The files of a run are the record; a mirror that is lost can be made again from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from diffsweep.sweep.store.record import Fit, read_metrics
from diffsweep.tracking.wandb_run import Mirror, Place, Subject, numbers


def csv(subject: Subject) -> Logger:
    """metrics.csv in the folder's ``csv``; one that is resumed writes all of its lines again."""
    _forget(subject.folder / "csv", "metrics.csv")
    return CSVLogger(save_dir=subject.folder, name="", version="csv")


def tensorboard(subject: Subject) -> Logger:
    """Events in the folder's ``tensorboard``; one that is resumed writes all of its lines again, in a file of its own.

    Raises:
        ValueError: if TensorBoard is not installed.
    """
    folder = subject.folder / "tensorboard"
    _forget(folder, "events.out.tfevents.*")
    try:
        logger = TensorBoardLogger(save_dir=folder, name="", version="")
        assert logger.experiment
    except ImportError as error:
        raise ValueError("logger=tensorboard needs a package: pip install tensorboard") from error
    return logger


def _forget(folder: Path, pattern: str) -> None:
    """Remove what an interrupted training has written: it is told again, from the record."""
    for old in folder.glob(pattern):
        old.unlink()


@dataclass(frozen=True)
class Wandb:
    """How trainings and cells are shown in W&B; called with a subject, it begins or goes on with that one's run.

    Attributes:
        project: W&B project.
        entity: W&B team or user; None is the user's default.
        mode: "online", "offline", or "auto": online if there is a key and the server answers within 3 s.
        samples_every: Training steps between pictures of samples of the averaged weights, >= 1; None for none.
        samples: How many samples such a picture has, >= 1.
        artifact: Whether to upload the averaged weights of a finished training.

    Raises:
        ValueError: for another value.
    """

    project: str = "diffsweep"
    entity: str | None = None
    mode: str = "auto"
    samples_every: int | None = None
    samples: int = 16
    artifact: bool = False

    def __post_init__(self) -> None:
        # It says itself which project and which mode there are.
        Place(self.project, self.entity, self.mode)
        counts = {"samples": self.samples} | (
            {} if self.samples_every is None else {"samples_every": self.samples_every}
        )
        for key, value in counts.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"logger.wandb.{key}={value} must be a whole number, 1 or more")
        if not isinstance(self.artifact, bool):
            raise ValueError(f"logger.wandb.artifact={self.artifact} must be true or false")

    @property
    def place(self) -> Place:
        """Where."""
        return Place(self.project, self.entity, self.mode)

    def __call__(self, subject: Subject) -> WandbLogger:
        """The W&B run named by the subject's signature: the same run when a job resumes."""
        return WandbLogger(Mirror.open(subject, self.place), subject, self)


class WandbLogger(Logger):
    """A W&B run as Lightning wants its loggers.

    Args:
        mirror: The run; None if W&B is not there, which is no reason to fail.
        subject: What is logged.
        wanted: What is shown of it.
    """

    def __init__(self, mirror: Mirror | None, subject: Subject, wanted: Wandb) -> None:
        super().__init__()
        self.mirror = mirror
        self.subject = subject
        self.wanted = wanted

    @property
    def name(self) -> str:
        return self.subject.name

    @property
    def version(self) -> str:
        return self.subject.signature

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self.mirror is not None and step is not None:
            self.mirror.row(metrics, step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The config is told when the run begins."""


def trained(logger: Logger, done: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], weights: Path) -> None:
    """Tell a logger that the training is finished.

    Args:
        logger: Any.
        done: What done.json says.
        rows: Of metrics.jsonl.
        weights: The averaged ones.
    """
    if isinstance(logger, WandbLogger) and logger.mirror is not None:
        logger.mirror.trained(done, rows, weights if logger.wanted.artifact else None)


def evaluated(logger: Logger, result: Mapping[str, Any], grid: Path) -> None:
    """Tell a logger the result of a cell.

    Args:
        logger: Any.
        result: What result.json says.
        grid: The picture of its samples.
    """
    if not isinstance(logger, WandbLogger):
        logger.log_metrics(numbers(result))
    elif logger.mirror is not None:
        logger.mirror.evaluated(result, grid)


def finish(logger: Logger, *, failed: bool, preempted: bool = False) -> str | None:
    """End a logger's run; says how to send a W&B run that stayed offline.

    Args:
        logger: Any.
        failed: Whether what is logged did.
        preempted: Whether it was stopped and is to go on.
    """
    if not isinstance(logger, WandbLogger):
        logger.finalize("failed" if failed else "success")
        return None
    if logger.mirror is None:
        return None
    fit = logger.subject.kind == "fit"
    rows = read_metrics(Fit(logger.subject.folder).metrics_file) if failed and fit else []
    logger.mirror.close(failed=failed, preempted=preempted, rows=rows)
    return logger.mirror.hint
