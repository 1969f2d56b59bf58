"""Overrides of a run that takes a second, for tests that start many."""

from __future__ import annotations

TINY = [
    "dataset=mixture",
    "dataset.size=1000",
    "backbone=mlp",
    "backbone.width=16",
    "backbone.depth=1",
    "training.batch_size=32",
    "training.warmup=10",
    "evaluation.samples=64",
    "trainer.threads=1",
    "trainer.log_every=10",
]
