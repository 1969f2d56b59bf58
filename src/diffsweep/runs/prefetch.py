"""Everything that a run would fetch or compute about real data, done once where there is internet.

The data, the weights of the feature extractor and the statistics of the real data: compute nodes then need neither
internet nor the time for it, and the first jobs of a sweep do not all compute the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig

from diffsweep.conditioners.conditioner import prepare
from diffsweep.evaluation.pretrained import home
from diffsweep.runs.build import evaluation_settings, make_evaluation
from diffsweep.runs.instantiate import make, make_conditioners
from diffsweep.scoring.measure import Baseline


def prefetch(cfg: DictConfig) -> str:
    """Fetch what the config's dataset and extractor need; returns what is there now, and which files are new, by line.

    Raises:
        ValueError: for data or weights that cannot be had, saying where to put them.
    """
    dataset = make(cfg, "dataset")
    with _arriving(cfg.dataset.get("root")) as data:
        train, test = dataset.load("train"), dataset.load("test")
    conditioners = make_conditioners(cfg)
    with _arriving(cfg.paths.cache) as conditions:
        for split in (train, test):
            prepare(conditioners.values(), split)
    with _arriving(home(cfg.paths.weights)) as weights:
        evaluation = make_evaluation(cfg, dataset)
    extractor = evaluation.extractor
    with _arriving(cfg.paths.cache) as statistics:
        # Samples have labels if the model or its guidance is given them; the guidance itself may need a finished fit.
        guidance: Any = get_class(cfg.guidance._target_)
        labelled = "label" in {*conditioners, *guidance.reads}
        real = Baseline.of(dataset, evaluation, evaluation_settings(cfg), balanced=labelled)
    here = [path for path in extractor.files if path not in weights]
    return "\n".join(
        [
            f"{dataset.name}: {len(train):,} training and {len(test):,} test examples",
            *_lines("fetched", data),
            *_lines("made", conditions),
            f"{evaluation.main}: extractor {extractor.space} {extractor.digest[:12]}",
            *_lines("fetched", weights),
            *_lines("was there:", here),
            f"statistics of {real.reference.n:,} real and {real.held_out or 0:,} held-out examples"
            f"{'' if statistics else ': were there'}",
            *_lines("made", statistics),
        ]
    )


@contextmanager
def _arriving(folder: str | Path | None) -> Iterator[list[Path]]:
    """Files that are in the folder after the block and were not before."""
    before, arrived = _paths(folder), []
    yield arrived
    arrived.extend(path for path in sorted(_paths(folder) - before) if path.is_file())


def _paths(folder: str | Path | None) -> set[Path]:
    # As deep as any of our datasets' files lie; no file is looked at, for there may be very many.
    return set() if folder is None else {path for depth in ("*", "*/*", "*/*/*") for path in Path(folder).glob(depth)}


def _lines(what: str, paths: Iterable[Path]) -> list[str]:
    return [f"  {what} {path} ({path.stat().st_size / 1e6:,.1f} MB)" for path in paths]
