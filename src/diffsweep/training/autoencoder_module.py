"""One step of an autoencoder's training: the autoencoder's own, and one of the discriminator that it is up against."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn

from diffsweep.autoencoders.autoencoder import Autoencoder
from diffsweep.autoencoders.losses import Losses, adaptive_weight, hinge
from diffsweep.autoencoders.perceptual import PerceptualDistance
from diffsweep.mistakes import BadValue
from diffsweep.settings import TrainingSettings
from diffsweep.training.batches import Batch


class AutoencoderTraining(LightningModule):
    """Trains an autoencoder and, from the step on that its losses name, a discriminator.

    A step of the training is one of the autoencoder's optimizer: only that is counted.

    Args:
        autoencoder: What is trained.
        discriminator: What it is up against; None for nothing.
        losses: What for.
        encode: From stored images to [-1, 1].
        optimizer: Parameters -> torch optimizer, for both.
        settings: How both are driven.

    Attributes:
        terms: Losses of the last step by name, for the record.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        discriminator: nn.Module | None,
        losses: Losses,
        encode: Callable[[Tensor], Tensor],
        optimizer: Callable[[Any], torch.optim.Optimizer],
        settings: TrainingSettings,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.autoencoder = autoencoder.requires_grad_(True).train()
        self.discriminator = discriminator
        self.losses, self.encode, self.optimizer, self.settings = losses, encode, optimizer, settings
        self.perceptual = PerceptualDistance() if losses.perceptual else None
        self.gradient_norm: Tensor | None = None
        self.terms: dict[str, Tensor] = {}

    def on_fit_start(self) -> None:
        if self.trainer.world_size > 1:
            rule = f"trains an autoencoder on one device, and here are {self.trainer.world_size}: train it first, with "
            raise BadValue("trainer.devices", self.trainer.world_size, f"{rule}stage=autoencoder trainer.devices=1")
        if self.trainer.precision == "16-mixed":
            rule = "scales losses, and an autoencoder has two: choose bf16-mixed or 32-true"
            raise BadValue("trainer.precision", self.trainer.precision, rule)
        if self.perceptual is not None:
            self.perceptual.to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The losses of a batch; both optimizers have made their step then."""
        x = self.encode(batch.x0)
        step, losses = self.global_step, self.losses
        found = self.autoencoder.reconstruct(x, batch.eps)
        likeness = losses.likeness(x, found.x, self.perceptual)
        loss = likeness + losses.regularization * found.regularization
        self.terms = {"likeness": likeness.detach(), "regularization": found.regularization.detach()}
        opponent = self.discriminator if losses.adversarial and step >= losses.adversarial_start else None
        if opponent is not None:
            adversarial = -opponent(found.x).mean()
            weight = adaptive_weight(likeness, adversarial, self.autoencoder.last_layer)
            self.terms |= {"adversarial": adversarial.detach(), "adversarial_weight": weight}
            loss = loss + losses.adversarial * weight * adversarial
        optimizers: Any = self.optimizers()
        first = optimizers if self.discriminator is None else optimizers[0]
        first.zero_grad()
        self.manual_backward(loss)
        limit = math.inf if self.settings.clip is None else self.settings.clip
        self.gradient_norm = torch.nn.utils.clip_grad_norm_(self.autoencoder.parameters(), limit)
        first.step()
        if opponent is not None:
            self.terms["discriminator"] = self._train_opponent(opponent, x, found.x.detach(), step)
        schedule: Any = self.lr_schedulers()
        schedule.step()
        return {"loss": loss.detach()}

    def _train_opponent(self, opponent: nn.Module, x: Tensor, reconstructed: Tensor, step: int) -> Tensor:
        """A step of the discriminator at the autoencoder's share of the learning rate; its loss."""
        # Lightning's own would count it as a step of the training.
        second = self.trainer.optimizers[1]
        for group in second.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * self.settings.learning_rate_factor(step)
        # The autoencoder's loss has left gradients in it.
        second.zero_grad()
        loss = hinge(opponent(x), opponent(reconstructed))
        self.manual_backward(loss)
        second.step()
        return loss.detach()

    def configure_optimizers(self) -> Any:
        parts = [self.autoencoder, *([] if self.discriminator is None else [self.discriminator])]
        optimizers = [self.optimizer(part.parameters()) for part in parts]
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizers[0], self.settings.learning_rate_factor)
        return optimizers, [schedule]
