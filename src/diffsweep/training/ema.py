"""Exponential moving average of the weights, with a warm-up of the decay.

    average <- average + (1 - d_n) (weights - average),   d_n = min(decay, (1 + n) / (10 + n))

after n updates, so that the first, bad weights are forgotten quickly (the warm-up is that of TensorFlow's
ExponentialMovingAverage, num_updates). Lightning's own callback is not used: it keeps the average where the weights
were before the training, which is the host, and asks the device for the number of updates in every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor


class Averaging(Callback):
    """Averages the weights beside them, on their device, and leaves the averages in the module when training ends.

    Args:
        decay: In [0, 1); its half-life is about 0.69 / (1 - decay) steps; 0 keeps the last weights.
    """

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = decay
        self.updates = 0
        self._step = 0
        self._averages: dict[str, Tensor] = {}

    @property
    def state_key(self) -> str:
        """The name of its state in checkpoints, as version 0.1 wrote it."""
        return "WeightAveraging"

    def state_dict(self) -> dict[str, Any]:
        return {"latest_update_step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._step = state_dict["latest_update_step"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Now the weights are where they are trained.
        known = self._averages
        self._averages = {
            name: known[name].to(weight.device) if name in known else weight.detach().clone()
            for name, weight in pl_module.named_parameters()
        }

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step <= self._step:
            return
        self._step = trainer.global_step
        self.average(pl_module)

    @torch.no_grad()
    def average(self, module: LightningModule) -> None:
        """Take the weights after a step into the averages."""
        averages, weights = list(self._averages.values()), [weight.detach() for weight in module.parameters()]
        if self.updates == 0:
            torch._foreach_copy_(averages, weights)  # pyright: ignore[reportPrivateImportUsage]
        else:
            kept = min(self.decay, (1 + self.updates) / (10 + self.updates))
            torch._foreach_lerp_(averages, weights, 1 - kept)  # pyright: ignore[reportPrivateImportUsage]
        self.updates += 1

    @torch.no_grad()
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for name, weight in pl_module.named_parameters():
            weight.copy_(self._averages[name])

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["current_model_state"] = checkpoint["state_dict"]
        checkpoint["state_dict"] = self.averaged(pl_module)
        checkpoint["averaging_state"] = {"n_averaged": torch.tensor(self.updates)}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        averages, self.updates = checkpoint["state_dict"], int(checkpoint["averaging_state"]["n_averaged"])
        self._averages = {name: averages[name] for name, _ in pl_module.named_parameters()}
        pl_module.load_state_dict(checkpoint["current_model_state"])

    def averaged(self, module: LightningModule) -> dict[str, Tensor]:
        """The module's `state_dict` with the averaged weights: not copies, the next step changes them."""
        # A weight that two parts share has two names in it.
        names = {id(weight): name for name, weight in module.named_parameters()}
        found: dict[str, Tensor] = {}
        for name, value in module.state_dict(keep_vars=True).items():
            own = names.get(id(value))
            found[name] = value.detach() if own is None else self._averages[own]
        return found

    def backbone(self, module: LightningModule) -> dict[str, Tensor]:
        """The backbone's averaged weights, as its `state_dict` names them: not copies, the next step changes them."""
        return backbone_weights(self.averaged(module))


def backbone_weights(module_weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a whole module's `state_dict` the backbone's, by the names that it has for them."""
    prefix = "denoiser.backbone."
    return {name.removeprefix(prefix): value for name, value in module_weights.items() if name.startswith(prefix)}
