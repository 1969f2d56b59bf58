"""Who follows a training: the terminal (a bar with ETA), status.json (other processes), metrics.jsonl (the record)."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from tqdm import tqdm

from diffsweep.files import CannotWriteError
from diffsweep.messages import say
from diffsweep.sweep.store.record import Fit, Metrics, read_metrics


class Progress(Callback):
    """Records and shows a training; only the first rank does.

    Args:
        fit: Its record.
        steps: Length of the training.
        batch_size: Images per step.
        every: Steps between lines of metrics.jsonl, >= 1.
        show: Whether to draw a bar when standard error is a terminal.
    """

    def __init__(self, fit: Fit, steps: int, batch_size: int, every: int, *, show: bool = True) -> None:
        self.fit = fit
        self.steps = steps
        self.batch_size = batch_size
        self.every = every
        self.show = show
        self.metrics = Metrics(fit.metrics_file)
        self.seconds = 0.0
        self.loss = math.nan
        self._window: list[Tensor] = []
        self._noted: dict[str, float] = {}
        self._bar: Any = None
        self._since = self._status_time = self._drawn = time.monotonic()
        self._first = 0
        self._refused = False

    def state_dict(self) -> dict[str, Any]:
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
        if not trainer.is_global_zero:
            return
        self.metrics.resume(self._first)
        for line in read_metrics(self.fit.metrics_file):
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
            mean = torch.stack([x.to(self._window[-1].device) for x in self._window]).mean()
            self.loss = float(trainer.strategy.reduce(mean, reduce_op="mean"))
            self._window.clear()
            if not math.isfinite(self.loss):
                rate = pl_module.optimizers().param_groups[0]["lr"]
                raise ValueError(
                    f"the loss is {self.loss} at step {step}: training diverged; lower optimizer.lr (it was {rate:.3g} "
                    "there), lengthen training.warmup or set training.clip"
                )
            if trainer.is_global_zero:
                self._log(trainer, pl_module, step)
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
        self._finish(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._finish(trainer)

    def note(self, trainer: Trainer, **values: float) -> None:
        """Record numbers of the step that has just ended, in a line of their own; only the first rank does."""
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

    def _finish(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self.seconds += time.monotonic() - self._since
            self._bar.close()
            self._bar = None
            self.metrics.close()

    def _speed(self, step: int) -> float:
        return (step - self._first) * self.batch_size / max(time.monotonic() - self._since, 1e-9)

    def _log(self, trainer: Trainer, pl_module: Any, step: int) -> None:
        values = {
            "loss": self.loss,
            "lr": float(pl_module.lr_schedulers().get_last_lr()[0]),
            "gradient_norm": float(pl_module.gradient_norm),
            "images_per_second": round(self._speed(step), 1),
        }
        self._write(trainer, step, values)

    def _write(self, trainer: Trainer, step: int, values: dict[str, float]) -> None:
        self.metrics.write(step - 1, **values)
        known = {name: value for name, value in values.items() if math.isfinite(value)}
        for logger in trainer.loggers if known else ():
            logger.log_metrics(known, step=step - 1)

    def _tell(self, step: int) -> None:
        speed = self._speed(step)
        try:
            self.fit.write_status(
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
                say(f"fit {self.fit.signature} goes on, though its status cannot be written: {error}")
            self._refused = True
