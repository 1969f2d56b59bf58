"""Everything that a run would fetch or compute about real data, done once where there is internet.

The data, the weights of the feature extractor and the statistics of the real data: compute nodes then need neither
internet nor the time for it, and the first jobs of a sweep do not all compute the same.
"""

from __future__ import annotations

from omegaconf import DictConfig

from diffsweep.training.make import make
from diffsweep.training.measure import known, library, make_evaluation


def prefetch(cfg: DictConfig) -> str:
    """Fetch what the config's dataset and extractor need; returns one line that says what is there.

    Raises:
        ValueError: for data or weights that cannot be had, saying where to put them.
    """
    dataset = make(cfg, "dataset")
    train, test = dataset.load("train"), dataset.load("test")
    evaluation = make_evaluation(cfg)
    reference, _ = known(cfg, dataset, library(cfg, evaluation))
    return (
        f"{dataset.name}: {len(train.x):,} training and {len(test.x):,} test examples; "
        f"{evaluation.main}: extractor {evaluation.extractor.digest[:12]}, statistics of {reference.n:,} real examples"
    )
