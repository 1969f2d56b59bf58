"""Checkpoints that are whole or absent, taken between steps by the clock, and at a signal before leaving.

A requeue, a node failure and ``kill -9`` call no hook: only the checkpoint that was taken by the clock is left then.
SIGTERM, SIGUSR2 and Ctrl-C end the step at hand, save, and leave with the exit code that the caller expects: 128 +
signal.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from diffsweep.sweep.store.lease import LeaseLostError


class Checkpoints(Callback):
    """Saves to one file every ``seconds``, and at SIGTERM, SIGUSR2 or SIGINT before stopping.

    Args:
        path: The checkpoint file; each save replaces it whole.
        seconds: Time between saves, > 0.
        held: Whether this process still has the right to write it; asked before every save.
        last: Step after which it is saved whatever the time, for work that comes after a training; None for none.
    """

    def __init__(
        self, path: Path, seconds: float, held: Callable[[], bool] = lambda: True, last: int | None = None
    ) -> None:
        self.path = path
        self.last = last
        self.seconds = seconds
        self.held = held
        self.stopped_by: int | None = None
        self._last = time.monotonic()
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Here, not earlier: Lightning installs handlers of its own just before, that would end a fit with exit code 0.
        self._last = time.monotonic()
        if threading.current_thread() is not threading.main_thread():
            return
        # SIGUSR2 is how a SLURM job is told that its time is nearly over.
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            self._before[signum] = signal.signal(signum, self._stop)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        late = time.monotonic() - self._last >= self.seconds
        due = late or self.stopped_by is not None or trainer.global_step == self.last
        if trainer.world_size > 1:
            # All ranks must save at the same step; asking them at every step would cost more than the step.
            if trainer.global_step % 20:
                return
            self.stopped_by = trainer.strategy.broadcast(self.stopped_by)
            due = trainer.strategy.broadcast(due)
        if due:
            if not self.held():
                fit = self.path.parent.parent
                raise LeaseLostError(f"{fit} was taken over by another process while this one slept")
            trainer.save_checkpoint(self.path)
            self._last = time.monotonic()
        if self.stopped_by is not None:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        if self.stopped_by is not None:
            # Somebody insists: leave without waiting for the step.
            os._exit(128 + signum)
        self.stopped_by = signum

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
