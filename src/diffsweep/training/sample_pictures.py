"""Pictures of a training that goes on, drawn with the averaged weights of the step; the training does not notice.

Sample i starts from the same noise in all of them and in the cell's final picture.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, WeightAveraging
from omegaconf import DictConfig

from diffsweep.evaluation.pictures import grid
from diffsweep.runs.build import Parts
from diffsweep.sweep.store.record import Fit
from diffsweep.tracking.loggers import WandbLogger
from diffsweep.tracking.record_values import PICTURES
from diffsweep.training.ema import averaged
from diffsweep.training.progress import Progress


class Glimpses(Callback):
    """Draws pictures every so many steps, keeps them in the fit's folder and shows them to a logger.

    Args:
        cfg: The composed config.
        parts: What the run is made of; its denoiser is copied.
        fit: Record of the training.
        logger: Whom to show them, who says how often.
        averaging: Averages the weights.
        progress: Is told how long drawing took, which is no training time.
    """

    def __init__(
        self,
        cfg: DictConfig,
        parts: Parts,
        fit: Fit,
        logger: WandbLogger,
        averaging: WeightAveraging,
        progress: Progress,
    ) -> None:
        self.cfg = cfg
        self.parts = parts
        self.fit = fit
        self.logger = logger
        self.averaging = averaging
        self.progress = progress

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        every = self.logger.settings.samples_every
        if not every or step % every or not trainer.is_global_zero:
            return
        started = time.monotonic()
        path = self.fit.folder / PICTURES / f"{step:08d}.png"
        with torch.random.fork_rng(), torch.no_grad(), trainer.precision_plugin.forward_context():
            grid(self._drawn(trainer, pl_module), path)
        if self.logger.run is not None:
            self.logger.run.log_picture(path, step - 1)
        self.progress.leave_out(time.monotonic() - started)

    def _drawn(self, trainer: Trainer, module: LightningModule) -> torch.Tensor:
        parts, asked = self.parts, self.cfg.evaluation
        denoiser = copy.deepcopy(parts.denoiser)
        denoiser.backbone.load_state_dict(averaged(self.averaging, trainer, module))
        sampling = parts.sampling(denoiser.requires_grad_(False), asked.seed).to(trainer.strategy.root_device)
        chunks = torch.arange(self.logger.settings.samples).split(asked.batch_size)
        return torch.cat([sampling.predict_step(chunk, 0).samples for chunk in chunks])
