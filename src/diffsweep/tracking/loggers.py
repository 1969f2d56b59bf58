"""Lightning's loggers of a training or a cell: its CSV and TensorBoard loggers, and one that writes a W&B run.

The files of a run are the record; what a logger has lost can be made again from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from diffsweep.sweep.store.record import AutoencoderRecord, TrainingRecord, read_metrics
from diffsweep.sweep.store.result import Result
from diffsweep.tracking.record_values import numbers
from diffsweep.tracking.run_info import RunInfo
from diffsweep.tracking.wandb_run import WandbRun
from diffsweep.tracking.wandb_settings import WandbSettings


def csv(info: RunInfo) -> Logger:
    """metrics.csv in the folder's ``csv``; one that is resumed writes all of its lines again."""
    _forget(info.folder / "csv", "metrics.csv")
    return CSVLogger(save_dir=info.folder, name="", version="csv")


def tensorboard(info: RunInfo) -> Logger:
    """Events in the folder's ``tensorboard``; one that is resumed writes all of its lines again, in a file of its own.

    Raises:
        ValueError: if TensorBoard is not installed.
    """
    folder = info.folder / "tensorboard"
    _forget(folder, "events.out.tfevents.*")
    try:
        logger = TensorBoardLogger(save_dir=folder, name="", version="")
        assert logger.experiment
    except ImportError as error:
        raise ValueError("logger=tensorboard needs a package: pip install tensorboard") from error
    return logger


def _forget(folder: Path, pattern: str) -> None:
    """Remove what an interrupted training has written: it is logged again, from the record."""
    for old in folder.glob(pattern):
        old.unlink()


class WandbLogger(Logger):
    """A W&B run as a logger of Lightning.

    Args:
        run: The open run; None if W&B cannot be used, which is no reason to fail.
        info: What is logged.
        settings: What of it is shown.
    """

    def __init__(self, run: WandbRun | None, info: RunInfo, settings: WandbSettings) -> None:
        super().__init__()
        self.run = run
        self.info = info
        self.settings = settings

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def version(self) -> str:
        return self.info.signature

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self.run is not None and step is not None:
            self.run.log_row(metrics, step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the config is sent when the run begins. Lightning's signature."""


def log_training(logger: Logger, record: TrainingRecord) -> None:
    """Log that a training is finished.

    Args:
        logger: Of any kind.
        record: Of the training.
    """
    if isinstance(logger, WandbLogger) and logger.run is not None:
        show_training(logger.run, record, logger.settings)


def show_training(run: WandbRun, record: TrainingRecord, settings: WandbSettings) -> None:
    """Show in a W&B run what is recorded of a finished training, with its weights if that is asked for."""
    weights = record.checkpoints / "ema.safetensors" if settings.artifact else None
    picture = record.pictures_file if isinstance(record, AutoencoderRecord) else None
    run.log_training(record.result() or {}, read_metrics(record.metrics_file), weights, picture)


def log_result(logger: Logger, result: Result, grid: Path) -> None:
    """Log the result of a cell.

    Args:
        logger: Of any kind.
        result: Of the cell.
        grid: The picture of its samples.
    """
    if not isinstance(logger, WandbLogger):
        logger.log_metrics(numbers(result.values))
    elif logger.run is not None:
        logger.run.log_result(result, grid)


def close(logger: Logger, *, failed: bool, preempted: bool = False) -> str | None:
    """End a logger's run; returns the command that sends a W&B run that was kept offline, else None.

    Args:
        logger: Of any kind.
        failed: Whether the fit or cell did.
        preempted: Whether it was stopped and is to go on.
    """
    if not isinstance(logger, WandbLogger):
        logger.finalize("failed" if failed else "success")
        return None
    if logger.run is None:
        return None
    trains = logger.info.trains
    rows = read_metrics(TrainingRecord(logger.info.folder).metrics_file) if failed and trains else []
    logger.run.close(failed=failed, preempted=preempted, rows=rows)
    return logger.run.sync_command
