"""A Lightning training from its checkpoint to its end, whatever is trained: signals, failures and their records."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
from lightning import LightningDataModule, LightningModule, Trainer

from diffsweep.messages import say
from diffsweep.ranks import is_first_rank
from diffsweep.sweep.store.lease import LeaseLostError
from diffsweep.sweep.store.record import CannotWriteError, TrainingRecord, make_folder
from diffsweep.trainer import Interrupted
from diffsweep.training.checkpoint import Checkpoints


def checked_checkpoint(record: TrainingRecord) -> Path:
    """The checkpoint that a training goes on from, whether it is there or not.

    Raises:
        ValueError: if it is there and cannot be read.
    """
    checkpoint = record.checkpoints / "last.ckpt"
    make_folder(record.checkpoints)
    if checkpoint.exists():
        say(f"{record.noun} {record.signature}: going on from its checkpoint")
        try:
            torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        except OSError as error:
            raise ValueError(f"{checkpoint} cannot be read: {error.strerror or error}") from error
        except Exception as error:
            line = " ".join(str(error).split())
            raise ValueError(f"{checkpoint} is damaged ({line}): move it away to train from the start") from error
    return checkpoint


def run_training(
    trainer: Trainer,
    module: LightningModule,
    data: LightningDataModule,
    record: TrainingRecord,
    checkpoints: Checkpoints,
) -> None:
    """Train from the last checkpoint, if there is one.

    Args:
        trainer: With the number of steps and all callbacks.
        module: What is trained.
        data: Its batches.
        record: Where a failure or an interruption is recorded.
        checkpoints: One of the callbacks.

    Raises:
        Interrupted: after SIGTERM or SIGINT, with the state saved.
    """
    try:
        trainer.fit(
            module,
            datamodule=data,
            ckpt_path=str(checkpoints.path) if checkpoints.path.exists() else None,
            weights_only=True,
        )
    except Exception as error:
        # What another process works on now is its to record.
        if is_first_rank() and not isinstance(error, LeaseLostError):
            with contextlib.suppress(OSError, CannotWriteError):
                record.write_status("failed", reason=record.write_error(error))
        raise
    if checkpoints.stopped_by is not None:
        if is_first_rank():
            step, steps = trainer.global_step, trainer.max_steps
            record.write_status("waiting", step=step, steps=steps, reason="interrupted")
            say(f"stopped at step {step} of {steps}, which is saved: the same command goes on from there")
        raise Interrupted(checkpoints.stopped_by)
