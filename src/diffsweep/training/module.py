"""The thin Lightning module: one step is a pure function of (weights, buffers, optimizer state, batch)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from diffsweep.compilation import compile_network, compiled
from diffsweep.diffusion import Condition, Denoiser
from diffsweep.diffusion.objective import Objective
from diffsweep.mistakes import BadValue
from diffsweep.random_streams import generator
from diffsweep.settings import TrainerSettings, TrainingSettings
from diffsweep.training.activation_checkpointing import checkpoint_activations
from diffsweep.training.batches import Batch
from diffsweep.training.former_checkpoint import with_current_names
from diffsweep.training.weight_decay import parameters_to_train


class Training(LightningModule):
    """Trains a denoiser with a diffuser's objective, which may itself learn or remember.

    Args:
        denoiser: The model.
        diffuser: The objective.
        encode: From the stored data to what the network sees, as uint8 to [-1, 1].
        optimizer: Parameters -> torch optimizer.
        settings: How it is driven.
        trainer: What is compiled, and how images lie in memory.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        diffuser: Objective,
        encode: Callable[[Tensor], Tensor],
        optimizer: Callable[[Any], torch.optim.Optimizer],
        settings: TrainingSettings,
        *,
        trainer: TrainerSettings | None = None,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.diffuser = diffuser
        self.encode = encode
        self.optimizer = optimizer
        self.settings = settings
        self.gradient_norm: Tensor | None = None
        self.memory_format = torch.contiguous_format
        self._loss = self._mean_loss
        self._graphs = trainer is not None and trainer.cuda_graphs
        if trainer is None:
            return
        if trainer.channels_last:
            self.memory_format = torch.channels_last
            denoiser.backbone.to(memory_format=torch.channels_last)
        if trainer.activation_checkpointing:
            checkpoint_activations(denoiser.backbone)
        if trainer.compile == "step":
            self._loss = compiled(self._mean_loss, cuda_graphs=trainer.cuda_graphs)
        elif trainer.compile:
            compile_network(denoiser.backbone, blocks=trainer.compile == "blocks", cuda_graphs=trainer.cuda_graphs)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Whatever a backbone draws by itself (dropout) must not depend on what was drawn in earlier steps.
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()
        torch.manual_seed(generator(self.settings.seed, "backbone", self.global_step).initial_seed() + self.global_rank)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        with_current_names(checkpoint, self, self.optimizer)

    def on_fit_start(self) -> None:
        if self.settings.accumulate > 1 and self.trainer.world_size > 1:
            rule = f"works on one device, and here are {self.trainer.world_size}: they share a batch already"
            raise BadValue("training.accumulate", self.settings.accumulate, rule)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        parts = self.settings.accumulate
        if parts == 1:
            return self._part(batch)
        # Lightning adds the gradient of the last part; those of the others are added here.
        self.zero_grad()
        others = torch.zeros((), device=self.device)
        size = len(batch.u) // parts
        *first, last = (batch.map(lambda value, i=i: value[i * size : (i + 1) * size]) for i in range(parts))
        for part in first:
            loss = self._part(part) / parts
            self.trainer.strategy.backward(loss, None)
            others += loss.detach()
        return self._part(last) / parts + others

    def _part(self, batch: Batch) -> Tensor:
        return self._loss(batch.x0, batch.u, batch.eps, batch.condition)

    def _mean_loss(self, stored: Tensor, u: Tensor, eps: Tensor, condition: Condition | None) -> Tensor:
        x0 = self.encode(stored)
        if x0.ndim == 4:
            x0, eps = (x.contiguous(memory_format=self.memory_format) for x in (x0, eps))
        return self.diffuser.regress(self.denoiser, x0, u, eps, condition).mean()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        # Lightning calls it between the step's loss and its gradient.
        if self.settings.accumulate == 1:
            optimizer.zero_grad()

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        limit = math.inf if self.settings.clip is None else self.settings.clip
        self.gradient_norm = torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), limit)

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(parameters_to_train(self, self.settings.weight_decay))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.settings.learning_rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
