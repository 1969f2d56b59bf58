"""Finished runs, made in this process, for tests of what is done with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from diffsweep.sweep.store.record import Run

CONF = Path(__file__).parent.parent / "conf"

# Images of a second, told their labels.
DIGITS = (
    "backbone.width=8",
    "backbone.patch=2",
    "condition=label",
    "training.steps=30",
    "training.warmup=5",
    "evaluation.samples=120",
    "evaluation.batch_size=50",
    "sampler.nfe=6",
    "trainer.progress=false",
    "ema.decay=0.5",
)


def composed(runs: Path, *overrides: str) -> tuple[DictConfig, Run]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=[*overrides, f"paths.runs={runs}"], return_hydra_config=True)
    choices: Any = OmegaConf.to_container(cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, Run.of(cfg, choices)


def finish(runs: Path, *overrides: str) -> dict[str, Any]:
    """The flat result of a run, as `python train.py OVERRIDE ...` leaves it."""
    from diffsweep.runs.stages import complete

    cfg, run = composed(runs, *overrides)
    result = complete(cfg, run, list(overrides))
    assert result is not None
    return result.flat()
