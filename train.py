"""The one entry: ``python train.py GROUP=OPTION ...`` trains, samples and scores; ``-m`` sweeps. See --help."""

import hydra
from omegaconf import DictConfig

from diffsweep.entry.train import job, run


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float | None:
    """One composed run; returns its main metric, for sweepers that search."""
    return job(cfg)


if __name__ == "__main__":
    run(main)
