"""Typed settings for tests, with values that none of them depends on."""

from __future__ import annotations

from typing import Any

from diffsweep.settings import TrainerSettings, TrainingSettings


def training_settings(**changes: Any) -> TrainingSettings:
    """Twelve steps of four examples with seed 3, but for what is changed."""
    values: dict[str, Any] = {
        "steps": 12,
        "batch_size": 4,
        "warmup": 0,
        "decay": "linear",
        "clip": None,
        "flip": False,
        "ema_decay": 0.9,
        "seed": 3,
    }
    return TrainingSettings(**(values | changes))


def trainer_settings(**changes: Any) -> TrainerSettings:
    """One CPU in full precision, but for what is changed."""
    values: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "num_nodes": 1,
        "strategy": "auto",
        "precision": "32-true",
        "deterministic": False,
        "compile": False,
        "threads": None,
        "checkpoint_seconds": 30.0,
        "log_every": 10,
        "progress": False,
    }
    return TrainerSettings(**(values | changes))
