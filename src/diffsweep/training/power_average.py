"""Averages that are kept while a training goes on, so that other lengths and other steps can be chosen after it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from safetensors.torch import save_file
from torch import Tensor

from diffsweep.files import atomic
from diffsweep.scoring.power_average import PowerAverage, newest_share
from diffsweep.scoring.weights import step_file
from diffsweep.training.ema import Averaging, backbone_weights


class KeptAverages(Callback):
    """Updates power-function averages at every step, and writes them, and the training's own average, at some.

    It must come before whatever saves checkpoints: what is kept of a step is on disk before a training can go on from
    it, and a training that goes on from an earlier one writes the same bytes again.

    Args:
        stds: Relative standard deviations of the averages.
        steps: When they are written.
        own: When the training's own average is written.
        averaging: That average.
        folder: Where to.
    """

    def __init__(
        self,
        stds: Sequence[float],
        steps: Collection[int],
        own: Collection[int],
        averaging: Averaging,
        folder: Path,
    ) -> None:
        self.stds, self.steps, self.own = stds, frozenset(steps), frozenset(own)
        self.averaging, self.folder = averaging, folder
        self.step = 0
        self.averages: dict[str, dict[str, Tensor]] = {}

    @property
    def state_key(self) -> str:
        """The name of its state in checkpoints."""
        return "KeptAverages"

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "averages": self.averages}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step, self.averages = state_dict["step"], state_dict["averages"]

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self.step:
            return
        self.step = step
        if self.stds:
            self._update(backbone_weights(pl_module.state_dict()), step)
        self.write(trainer, pl_module, powers=step in self.steps, own=step in self.own)

    def _update(self, weights: dict[str, Tensor], step: int) -> None:
        for std in self.stds:
            before = self.averages.get(f"{std:g}")
            if before is None:
                self.averages[f"{std:g}"] = {name: value.clone() for name, value in weights.items()}
                continue
            moving = [name for name, value in weights.items() if value.is_floating_point()]
            here = [before[name].to(weights[name]) for name in moving]
            torch._foreach_lerp_(here, [weights[name] for name in moving], newest_share(std, step))  # pyright: ignore[reportPrivateImportUsage]
            self.averages[f"{std:g}"] = {**weights, **dict(zip(moving, here, strict=True))}

    def write(self, trainer: Trainer, module: LightningModule, *, powers: bool, own: bool) -> None:
        """Write the averages as they are now, on the first rank: the power functions', the training's own, or both."""
        if not trainer.is_global_zero:
            return
        if powers:
            for std in self.stds:
                _save(self.averages[f"{std:g}"], self.folder / PowerAverage(std, self.step).file)
        if own:
            _save(self.averaging.backbone(module), self.folder / step_file(trainer.global_step))


def _save(weights: dict[str, Tensor], path: Path) -> None:
    with atomic(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, temporary)
