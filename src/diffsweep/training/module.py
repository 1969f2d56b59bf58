"""The thin Lightning module: one step is a pure function of (weights, buffers, optimizer state, batch)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from diffsweep.diffusion import Denoiser
from diffsweep.diffusion.objective import Objective
from diffsweep.random_streams import generator
from diffsweep.training.batches import Batch


@dataclass(frozen=True)
class Recipe:
    """How the optimizer is driven.

    Attributes:
        steps: Training steps, >= 1.
        warmup: Steps over which the learning rate rises linearly from 0.
        decay: Its course after that: constant, linear or cosine, down to 0 at the last step.
        clip: Largest gradient norm, > 0; None leaves gradients alone.
        seed: Training seed.
    """

    steps: int
    warmup: int
    decay: str
    clip: float | None
    seed: int

    def __post_init__(self) -> None:
        for key, value, least in (("steps", self.steps, 1), ("warmup", self.warmup, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"training.{key}={value} must be a whole number, {least} or more")
        if self.decay not in DECAYS:
            raise ValueError(f"training.decay={self.decay} is unknown: choose one of {', '.join(DECAYS)}")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"training.clip={self.clip} must be above 0, or null to leave gradients alone")

    def factor(self, step: int) -> float:
        """The learning rate of a step, as a share of the optimizer's."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        done = min(1.0, max(0.0, (step - self.warmup) / max(1, self.steps - self.warmup)))
        return rise * DECAYS[self.decay](done)


DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
}


class Training(LightningModule):
    """Trains a denoiser with a diffuser's objective, which may itself learn or remember.

    Args:
        denoiser: The model.
        diffuser: The objective.
        encode: From the stored data to what the network sees, as uint8 to [-1, 1].
        optimizer: Parameters -> torch optimizer.
        recipe: How it is driven.
        conditional: Whether the backbone is told the labels.
        compile: Compile the backbone with torch.compile.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        diffuser: Objective,
        encode: Callable[[Tensor], Tensor],
        optimizer: Callable[[Any], torch.optim.Optimizer],
        recipe: Recipe,
        *,
        conditional: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.diffuser = diffuser
        self.encode = encode
        self.optimizer = optimizer
        self.recipe = recipe
        self.conditional = conditional
        self.gradient_norm: Tensor | None = None
        if compile:
            denoiser.backbone.compile()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Whatever a backbone draws by itself (dropout) must not depend on what was drawn in earlier steps.
        torch.manual_seed(generator(self.recipe.seed, "backbone", self.global_step).initial_seed() + self.global_rank)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        labels = batch.labels if self.conditional else None
        x0 = self.encode(batch.x0)
        return self.diffuser.regress(self.denoiser, x0, batch.u, batch.eps, labels).mean()

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        limit = math.inf if self.recipe.clip is None else self.recipe.clip
        self.gradient_norm = torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), limit)

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.recipe.factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
