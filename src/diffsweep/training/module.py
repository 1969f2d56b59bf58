"""The thin Lightning module: one step is a pure function of (weights, buffers, optimizer state, batch)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from diffsweep.diffusion import Denoiser
from diffsweep.diffusion.objective import Objective
from diffsweep.mistakes import BadValue
from diffsweep.random_streams import generator
from diffsweep.settings import TrainingSettings
from diffsweep.training.batches import Batch


class Training(LightningModule):
    """Trains a denoiser with a diffuser's objective, which may itself learn or remember.

    Args:
        denoiser: The model.
        diffuser: The objective.
        encode: From the stored data to what the network sees, as uint8 to [-1, 1].
        optimizer: Parameters -> torch optimizer.
        settings: How it is driven.
        conditional: Whether the backbone is told the labels.
        compile: Compile the backbone with torch.compile.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        diffuser: Objective,
        encode: Callable[[Tensor], Tensor],
        optimizer: Callable[[Any], torch.optim.Optimizer],
        settings: TrainingSettings,
        *,
        conditional: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.diffuser = diffuser
        self.encode = encode
        self.optimizer = optimizer
        self.settings = settings
        self.conditional = conditional
        self.gradient_norm: Tensor | None = None
        if compile:
            denoiser.backbone.compile()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Whatever a backbone draws by itself (dropout) must not depend on what was drawn in earlier steps.
        torch.manual_seed(generator(self.settings.seed, "backbone", self.global_step).initial_seed() + self.global_rank)

    def on_fit_start(self) -> None:
        if self.settings.accumulate > 1 and self.trainer.world_size > 1:
            rule = f"works on one device, and here are {self.trainer.world_size}: they share a batch already"
            raise BadValue("training.accumulate", self.settings.accumulate, rule)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        parts = self.settings.accumulate
        if parts == 1:
            return self._loss(batch)
        # Lightning adds the gradient of the last part; those of the others are added here.
        self.zero_grad()
        others = torch.zeros((), device=self.device)
        size = len(batch.u) // parts
        *first, last = (Batch(*(value[i * size : (i + 1) * size] for value in batch)) for i in range(parts))
        for part in first:
            loss = self._loss(part) / parts
            self.trainer.strategy.backward(loss, None)
            others += loss.detach()
        return self._loss(last) / parts + others

    def _loss(self, batch: Batch) -> Tensor:
        labels = batch.labels if self.conditional else None
        x0 = self.encode(batch.x0)
        return self.diffuser.regress(self.denoiser, x0, batch.u, batch.eps, labels).mean()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        # Lightning calls it between the step's loss and its gradient.
        if self.settings.accumulate == 1:
            optimizer.zero_grad()

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        limit = math.inf if self.settings.clip is None else self.settings.clip
        self.gradient_norm = torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), limit)

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.settings.learning_rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
