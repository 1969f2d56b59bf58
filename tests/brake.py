"""A loss with a brake: while the file that BRAKE names is there, steps of a training take long, and no processor.

So a test finds a training in the middle of its work on any machine, and lets it go on by removing the file.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from torch import Tensor

from diffsweep.diffusion.loss import SquaredError


class Braked(SquaredError):
    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        if prediction.requires_grad and Path(os.environ.get("BRAKE", "/nowhere")).exists():
            time.sleep(0.02)
        return super().__call__(prediction, target)


LOSS = "diffuser.loss._target_=brake.Braked"


def environment(file: Path) -> dict[str, str]:
    """What a process needs to find this module and its brake."""
    return {"PYTHONPATH": str(Path(__file__).parent), "BRAKE": str(file)}
