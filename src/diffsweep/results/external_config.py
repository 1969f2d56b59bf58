"""The config by which foreign images are scored: that of the project, with another dataset or extractor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig

from diffsweep.mistakes import one_line
from diffsweep.project import main_conf
from diffsweep.sweep.plan.added_parameters import accept_added_parameters
from diffsweep.sweep.plan.unread_keys import refuse_unread
from diffsweep.sweep.store.process import import_from


def compose_external(words: Sequence[str], reference: str, runs: str) -> tuple[DictConfig, bool]:
    """The config of an evaluation, and whether its reference is a dataset of conf/, rather than a folder or file.

    Args:
        words: overrides, and `--config-dir=DIR` for folders of further options.
        reference: option of conf/dataset, or path of real images.
        runs: folder of the runs.

    Raises:
        ValueError: for an option, a reference or an override that is not there.
    """
    folders = [Path(word.partition("=")[2]) for word in words if word.startswith("--config-dir=")]
    overrides = [word for word in words if not word.startswith("--config-dir=")]
    keys = {word.lstrip("+~").partition("=")[0] for word in overrides}
    import_from(Path.cwd())
    accept_added_parameters()
    try:
        with initialize_config_dir(str(main_conf()), version_base="1.3"):
            places = ",".join(f"'file://{folder.absolute()}'" for folder in folders)
            search = f"hydra.searchpath=[{places}]"
            loader = GlobalHydra.instance().config_loader()

            def options(group: str) -> list[str]:
                return loader.get_group_options(group, config_name="config", overrides=[search])

            is_dataset = reference in options("dataset")
            if is_dataset:
                overrides.insert(0, f"dataset={reference}")
            elif not Path(reference).exists():
                raise ValueError(
                    f"--reference {reference} is no dataset, folder or file; datasets are "
                    f"{', '.join(options('dataset'))}"
                )
            elif "extractor" not in keys:
                if "efficientnet" not in options("extractor"):
                    raise ValueError(
                        f"choose the features with extractor=NAME, one of {', '.join(options('extractor'))}: "
                        f"{reference} has none of its own"
                    )
                overrides.insert(0, "extractor=efficientnet")
            cfg = compose("config", overrides=[search, *overrides])
            # Not among the overrides: a folder may be called what Hydra would not take for a value.
            cfg.paths.runs = runs
            refuse_unread(cfg)
            return cfg, is_dataset
    except HydraException as error:
        raise ValueError(one_line(error)) from error
