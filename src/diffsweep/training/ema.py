"""Exponential moving average of the weights, by Lightning's callback, with a warm-up of the decay.

    average <- average + (1 - d_n) (weights - average),   d_n = min(decay, (1 + n) / (10 + n))

after n updates, so that the first, bad weights are forgotten quickly (the warm-up is that of TensorFlow's
ExponentialMovingAverage, num_updates).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


def ema(decay: float = 0.999) -> WeightAveraging:
    """The callback; it leaves the averaged weights in the module when training ends.

    Args:
        decay: In [0, 1); its half-life is about 0.69 / (1 - decay) steps; 0 keeps the last weights.
    """

    @torch.no_grad()
    def update(averaged: Any, current: Any, count: Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(list(averaged), list(current), 1 - min(decay, (1 + n) / (10 + n)))  # pyright: ignore[reportPrivateImportUsage]

    return WeightAveraging(multi_avg_fn=update, use_buffers=False)


def averaged(averaging: WeightAveraging, trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
    """The backbone's averaged weights, as its `state_dict` names them: not copies, the next step changes them."""
    found: dict[str, Any] = {"state_dict": {}}
    averaging.on_save_checkpoint(trainer, module, found)
    return backbone_weights(found["state_dict"])


def backbone_weights(module_weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a whole module's `state_dict` the backbone's, by the names that it has for them."""
    prefix = "denoiser.backbone."
    return {name.removeprefix(prefix): value for name, value in module_weights.items() if name.startswith(prefix)}
