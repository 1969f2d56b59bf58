"""Pictures of samples of a training while it goes on, drawn with the averaged weights of the step.

Sample i starts from the same noise, and is asked for the same, in all of them and in the picture of the cell that this
training was started for. The training does not notice.
"""

from __future__ import annotations

import time

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from diffsweep.scoring.sample_files import draw_grid
from diffsweep.scoring.sampling import Sampling
from diffsweep.scoring.score import Scoring
from diffsweep.sweep.store.record import Fit
from diffsweep.tracking.loggers import WandbLogger
from diffsweep.tracking.record_values import PICTURES
from diffsweep.training.batches import Batch
from diffsweep.training.ema import Averaging
from diffsweep.training.progress import Progress


class SamplePictures(Callback):
    """Draws pictures every so many steps, keeps them in the fit's folder and shows them to a logger.

    Args:
        scoring: How samples of the finished training will be drawn; its denoiser is copied.
        fit: Record of the training.
        logger: Who is shown the pictures, and says how often.
        averaging: Averages the weights.
        progress: Is told how long drawing took, which is no training time.
    """

    def __init__(
        self, scoring: Scoring, fit: Fit, logger: WandbLogger, averaging: Averaging, progress: Progress
    ) -> None:
        self.scoring = scoring
        self.fit = fit
        self.logger = logger
        self.averaging = averaging
        self.progress = progress

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        step = trainer.global_step
        every = self.logger.settings.samples_every
        if not every or step % every or not trainer.is_global_zero:
            return
        started = time.monotonic()
        path = self.fit.folder / PICTURES / f"{step:08d}.png"
        with torch.random.fork_rng(), torch.no_grad(), trainer.precision_plugin.forward_context():
            draw_grid(self.scoring.model.dataset.modality, self._samples(trainer, pl_module), path)
        if self.logger.run is not None:
            self.logger.run.log_picture(path, step - 1)
        self.progress.leave_out(time.monotonic() - started)

    def _samples(self, trainer: Trainer, module: LightningModule) -> Tensor:
        scoring, settings = self.scoring, self.scoring.settings
        model = scoring.model.frozen_copy(self.averaging.backbone(module))
        sampling = Sampling(
            model, scoring.sampler, settings.seed, scoring.guidance_while_training, trainer=scoring.trainer.uncompiled()
        )
        sampling.ask(settings.choice)
        sampling = sampling.to(trainer.strategy.root_device)
        chunks = torch.arange(self.logger.settings.samples).split(settings.batch_size)
        return torch.cat([sampling.predict_step(chunk, 0).samples for chunk in chunks])
