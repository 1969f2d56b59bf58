"""A model that was trained elsewhere becomes a finished fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffsweep.mistakes import one_line
from diffsweep.project import main_conf
from diffsweep.sweep.plan.added_parameters import accept_added_parameters
from diffsweep.sweep.plan.imported_options import with_imported_options
from diffsweep.sweep.plan.unread_keys import refuse_unread
from diffsweep.sweep.store.process import import_from
from diffsweep.sweep.store.record import Fit, Run

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class ImportedModel:
    """A fit of origin "imported", and what was understood of its source.

    Attributes:
        fit: It is finished.
        understood: One line each.
    """

    fit: Fit
    understood: Sequence[str]


def import_model(
    source: str | Path,
    dataset: str,
    *,
    overrides: Sequence[str] = (),
    runs: str | Path = "runs",
    config_dir: str | Path | None = None,
    trust: bool = False,
) -> ImportedModel:
    """Make a finished fit of a model that is there already; nothing is trained and nothing of it is run.

    Args:
        source: its folder or file.
        dataset: an option of conf/dataset, with whose data its samples are to be compared.
        overrides: more words of a command line, as `dataset.size=32`.
        runs: folder of all runs.
        config_dir: a folder of further options.
        trust: whether a description may name any class; else those of diffsweep, torch and your own conf/ only.

    Raises:
        ValueError: in one line, for a source that cannot be read or does not go with the data.
    """
    import_from(Path.cwd())
    from diffsweep.interop.imported import Import
    from diffsweep.runs import stages
    from diffsweep.runs.pretrained import find
    from diffsweep.runs.trust import trusting

    with trusting(*filter(None, [config_dir]), everything=trust):
        cfg = _composed([f"pretrained='{_quoted(str(source))}'", f"dataset={dataset}", *overrides], runs, config_dir)
        understood = find(str(source), runs).understood()
        run = Run.of(cfg)
        if not run.fit.done:
            # What is refused must not leave a folder behind.
            fitting = stages.build(cfg).fitting
            assert isinstance(fitting, Import)
            fitting.load()
            stages.train(cfg, run)
    return ImportedModel(run.fit, understood)


def _quoted(path: str) -> str:
    return path.replace("\\", "\\\\").replace("'", "\\'")


def _composed(words: Sequence[str], runs: str | Path, config_dir: str | Path | None) -> DictConfig:
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    if config_dir is not None and not Path(config_dir).is_dir():
        raise ValueError(f"--config-dir {config_dir} is no folder")
    accept_added_parameters()
    search = f"hydra.searchpath=[{f'file://{Path(config_dir).absolute()}' if config_dir else ''}]"
    try:
        with initialize_config_dir(str(main_conf()), version_base="1.3"):
            cfg = compose("config", overrides=[search, *with_imported_options(words)])
            # Not among the overrides: a folder may be called what Hydra would not take for a value.
            cfg.paths.runs = str(runs)
            refuse_unread(cfg)
    except HydraException as error:
        raise ValueError(one_line(error)) from error
    return cfg
