"""Logs a training to an offline run of W&B in a folder and is killed before the run is closed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import test_wandb
from diffsweep.sweep.store.record import Fit
from diffsweep.tracking.wandb_settings import WandbSettings

opened = test_wandb.log(Fit(Path(sys.argv[1])), test_wandb.rows(50), WandbSettings(mode="offline"))
os.kill(os.getpid(), signal.SIGKILL)
