"""Somebody's program with options in the folder `conf` beside it: prints its seed, and fails if that is 1."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    if cfg.seed == 1:
        raise RuntimeError("one job in three")
    print("did", cfg.seed, flush=True)


main()
