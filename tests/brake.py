"""A loss and an optimizer with a brake: a file that BRAKE names, which tests make and remove.

While it is there and empty, steps with the loss take long, and no processor. If it says `loss 20` or `adam 20`, every
process that makes the 20th step with that loss, or with that optimizer, stops there until the file is gone or says
something else. So a test finds a training in the middle of its work on any machine, and lets it go on.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffsweep.diffusion.loss import SquaredError

# Steps of each process and kind.
_steps: Counter[tuple[int, str]] = Counter()


def _wait(kind: str) -> None:
    file = Path(os.environ.get("BRAKE", "/nowhere"))
    _steps[os.getpid(), kind] += 1
    with suppress(FileNotFoundError):
        if kind == "loss" and file.exists():
            time.sleep(0.02)
        while (said := file.read_text().split()) and said[0] == kind and _steps[os.getpid(), kind] >= int(said[1]):
            time.sleep(0.02)


class Braked(SquaredError):
    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        if prediction.requires_grad:
            _wait("loss")
        return super().__call__(prediction, target)


def adam(params: Any, **settings: Any) -> torch.optim.Adam:
    optimizer = torch.optim.Adam(params, **settings)
    optimizer.register_step_pre_hook(lambda *_: _wait("adam"))
    return optimizer


LOSS = "diffuser.loss._target_=brake.Braked"
AUTOENCODER = "autoencoder.optimizer._target_=brake.adam"


def environment(file: Path) -> dict[str, str]:
    """What a process needs to find this module and its brake."""
    return {"PYTHONPATH": str(Path(__file__).parent), "BRAKE": str(file)}
