"""Former import paths of classes that configs name by `_target_`: a config written by an earlier version still works.

Signatures hash `_target_`, so a class that moves keeps, for signatures only, the path that it had at first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Path of today -> path of the first version. An entry stays for as long as runs folders of that version are read.
FORMER = {
    "diffsweep.entry.sweep_end.SweepTable": "diffsweep.report.callback.SweepTable",
    "diffsweep.scoring.model_metrics.Likelihood": "diffsweep.training.likelihood.Likelihood",
    "diffsweep.scoring.shipped_classifier.Shipped": "diffsweep.training.judge.Shipped",
    "diffsweep.tracking.loggers.csv": "diffsweep.training.loggers.csv",
    "diffsweep.tracking.loggers.tensorboard": "diffsweep.training.loggers.tensorboard",
    "diffsweep.tracking.wandb_settings.WandbSettings": "diffsweep.training.loggers.Wandb",
}

_CURRENT = {former: current for current, former in FORMER.items()}


def signed_target(target: str) -> str:
    """The path under which signatures know the class `target`."""
    return FORMER.get(target, target)


def with_current_targets(config: Any) -> Any:
    """A copy of the plain containers `config` in which every `_target_` is a path of today."""
    if isinstance(config, Mapping):
        moved = {key: with_current_targets(value) for key, value in config.items()}
        target = config.get("_target_")
        return moved | {"_target_": _CURRENT[target]} if target in _CURRENT else moved
    return [with_current_targets(value) for value in config] if isinstance(config, (list, tuple)) else config
