"""Who follows a training: the terminal (a bar with ETA), status.json (other processes), metrics.jsonl (the record).

Work is only queued on a GPU, and to read a loss is to wait for all of it. So there the numbers of a line are copied to
the host while the steps of the next line run, and are read when those are queued: one line late.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from tqdm import tqdm

from diffsweep.files import CannotWriteError
from diffsweep.messages import say
from diffsweep.sweep.store.record import Metrics, TrainingRecord, read_metrics


@dataclass(frozen=True)
class _Line:
    """A line of metrics.jsonl that is still to be read: the host's copies of [loss, gradient norm], and the rest."""

    step: int
    numbers: Tensor
    rates: tuple[float, float]
    speed: float
    copied: torch.cuda.Event | None

    @classmethod
    def of(cls, step: int, numbers: Tensor, rates: tuple[float, float], speed: float) -> _Line:
        """Queue the copy of numbers that lie on a device."""
        if numbers.device.type != "cuda":
            return cls(step, numbers.detach(), rates, speed, None)
        host = torch.empty(numbers.shape, pin_memory=True)
        host.copy_(numbers.detach(), non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        return cls(step, host, rates, speed, copied)

    def read(self) -> tuple[float, float]:
        """Loss and gradient norm, once they are there."""
        if self.copied is not None:
            self.copied.synchronize()
        loss, norm = self.numbers.tolist()
        return loss, norm


def reads_late(device: torch.device) -> bool:
    """Whether to read a number on this device is to wait for the work that is queued there."""
    return device.type != "cpu"


class Progress(Callback):
    """Records and shows a training; only the first rank does.

    Args:
        record: Where it is recorded.
        steps: Length of the training.
        batch_size: Images per step.
        every: Steps between lines of metrics.jsonl, >= 1.
        show: Whether to draw a bar when standard error is a terminal.
    """

    def __init__(self, record: TrainingRecord, steps: int, batch_size: int, every: int, *, show: bool = True) -> None:
        self.record = record
        self.steps = steps
        self.batch_size = batch_size
        self.every = every
        self.show = show
        self.metrics = Metrics(record.metrics_file)
        self.seconds = 0.0
        self.loss = math.nan
        self._window: list[Tensor] = []
        # The line whose numbers are still on their way.
        self._unread: _Line | None = None
        self._late = False
        self._trainer: Trainer | None = None
        self._noted: dict[str, float] = {}
        self._bar: Any = None
        self._since = self._status_time = self._drawn = time.monotonic()
        self._first = 0
        self._refused = False

    def state_dict(self) -> dict[str, Any]:
        # Lines up to a checkpoint are not written again by whoever goes on from there.
        self._read()
        return {
            "seconds": self.seconds + time.monotonic() - self._since,
            "loss": self.loss,
            "window": [float(x) for x in self._window],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds = state_dict["seconds"]
        self.loss = state_dict.get("loss", math.nan)
        self._window = [torch.tensor(x) for x in state_dict["window"]]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = self._status_time = self._drawn = time.monotonic()
        self._first = trainer.global_step
        self._late = reads_late(trainer.strategy.root_device)
        self._trainer = trainer
        if not trainer.is_global_zero:
            return
        self.metrics.resume(self._first)
        for line in read_metrics(self.record.metrics_file):
            step, values = line["step"], {key: line[key] for key in line if key != "step" and line[key] is not None}
            for logger in trainer.loggers:
                logger.log_metrics(values, step=step)
        self._bar = tqdm(
            desc="training",
            total=self.steps,
            initial=self._first,
            unit="step",
            disable=None if self.show else True,
            dynamic_ncols=True,
            leave=False,
        )
        self._tell(trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        self._window.append(outputs["loss"].detach())
        if step % self.every == 0 or step == self.steps:
            self._read()
            device = self._window[-1].device
            mean = trainer.strategy.reduce(torch.stack([x.to(device) for x in self._window]).mean(), reduce_op="mean")
            self._window.clear()
            numbers = torch.stack([mean, pl_module.gradient_norm.to(mean)])
            schedule = trainer.lr_scheduler_configs[0].scheduler
            rates = trainer.optimizers[0].param_groups[0]["lr"], float(schedule.get_last_lr()[0])
            self._unread = _Line.of(step, numbers, rates, round(self._speed(step), 1))
            if not self._late or step == self.steps:
                self._read()
        now = time.monotonic()
        if trainer.is_global_zero and (now - self._drawn > 0.2 or step == self.steps):
            self._drawn = now
            noted = {name: f"{value:.4g}" for name, value in self._noted.items()}
            loss = {"loss": f"{self.loss:.4f}"} if math.isfinite(self.loss) else {}
            self._bar.set_postfix({**loss, "img/s": f"{self._speed(step):.0f}", **noted}, refresh=False)
            self._bar.update(step - self._bar.n)
        if trainer.is_global_zero and now - self._status_time > 2:
            self._status_time = now
            self._tell(step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._read()
        self._finish(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        with contextlib.suppress(ValueError, RuntimeError, OSError, CannotWriteError):
            self._read()
        self._finish(trainer)

    def note(self, trainer: Trainer, **values: float) -> None:
        """Record numbers of the step that has just ended, in a line of their own; only the first rank does."""
        self._read()
        self._noted |= values
        self._write(trainer, trainer.global_step, values)

    def leave_out(self, seconds: float) -> None:
        """Do not count so much of the last time as training."""
        self._since += seconds

    def record_last_step(self, trainer: Trainer, rate: float) -> None:
        """Write the loss of the steps since the last line, where a training has ended between two lines.

        Args:
            trainer: Of the training, which is finished and not only interrupted.
            rate: Learning rate of the last step.
        """
        if self._window and trainer.is_global_zero:
            self.loss = float(torch.stack([x.cpu() for x in self._window]).mean())
            self._window.clear()
            self._write(trainer, trainer.global_step, {"loss": self.loss, "lr": rate})
            self.metrics.close()

    def _read(self) -> None:
        """Write the line whose numbers are still on their way, if there is one."""
        line, self._unread = self._unread, None
        if line is None:
            return
        self.loss, norm = line.read()
        if not math.isfinite(self.loss):
            raise ValueError(
                f"the loss is {self.loss} at step {line.step}: training diverged; lower optimizer.lr (it was "
                f"{line.rates[0]:.3g} there), lengthen training.warmup or set training.clip"
            )
        trainer = self._trainer
        if trainer is not None and trainer.is_global_zero:
            values = {"loss": self.loss, "lr": line.rates[1], "gradient_norm": norm, "images_per_second": line.speed}
            self._write(trainer, line.step, values)

    def _finish(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self.seconds += time.monotonic() - self._since
            self._bar.close()
            self._bar = None
            self.metrics.close()

    def _speed(self, step: int) -> float:
        return (step - self._first) * self.batch_size / max(time.monotonic() - self._since, 1e-9)

    def _write(self, trainer: Trainer, step: int, values: dict[str, float]) -> None:
        self.metrics.write(step - 1, **values)
        known = {name: value for name, value in values.items() if math.isfinite(value)}
        for logger in trainer.loggers if known else ():
            logger.log_metrics(known, step=step - 1)

    def _tell(self, step: int) -> None:
        speed = self._speed(step)
        try:
            self.record.write_status(
                "running",
                step=step,
                steps=self.steps,
                loss=self.loss,
                images_per_second=speed,
                eta_seconds=(self.steps - step) * self.batch_size / speed if speed else None,
            )
        except (CannotWriteError, OSError) as error:
            # The status only tells people how far it is: without it the training goes on.
            if not self._refused:
                say(f"{self.record.noun} {self.record.signature} goes on, though its status cannot be written: {error}")
            self._refused = True
