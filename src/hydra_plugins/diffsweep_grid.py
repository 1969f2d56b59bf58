"""The grid of all combinations, handed to the launcher in one call: as Hydra's basic sweeper, but made for many cells.

The launcher composes the cells itself, so they are not composed once before; and it keeps the results of the good
cells when others fail, so a failed job raises nothing here: it is in what `sweep` returns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn


class GridSweeper(Sweeper):
    """Every combination of the values that the overrides give.

    Args:
        params: Overridden key -> what could follow `=` on a command line, which has the last word about a key.
    """

    def __init__(self, params: Mapping[str, Any] | None = None) -> None:
        self.params = params
        self.hydra_context: HydraContext | None = None
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.hydra_context = hydra_context
        self.config = config
        # As written: for whoever makes this object, Hydra has put the launching config's values in their place.
        self.params = config.hydra.sweeper.get("params")
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Launch every combination of `arguments`; what each job returned, in order, the failed ones included.

        Raises CompactHydraException, in one line, for what Hydra or the launcher refuses, and for an empty sweep.
        """
        from diffsweep.entry import cell_configs
        from diffsweep.mistakes import compact
        from diffsweep.sweep.plan.folders import runs_folder, sweep_name
        from diffsweep.sweep.plan.mode import Mode

        assert self.config is not None
        assert self.launcher is not None
        assert self.hydra_context is not None
        with compact():
            # First, for hydra.sweep.dir follows from it: what is wrong is said of the key that was typed.
            # Another program that sweeps by this grid has no folder of runs.
            if "paths" in self.config:
                runs_folder(self.config)
                sweep_name(self.config)
            batch = self._batch(arguments)
            if cell_configs.shows_configs():
                cell_configs.show(self.hydra_context.config_loader, self.config, batch)
                return []
            if not Mode.of(self.config).writes_plan:
                return list(self.launcher.launch(batch, initial_job_idx=0))
            with _noted(self.config, Path(self.config.hydra.sweep.dir)):
                return list(self.launcher.launch(batch, initial_job_idx=0))

    def _batch(self, arguments: list[str]) -> list[list[str]]:
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from diffsweep.sweep.plan.override_text import grid, params_text

        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*params_text(self.params), *arguments])
        for override in overrides:
            key = override.key_or_group
            if key == "sweep.name" and override.is_sweep_override():
                raise ValueError(f"{override.input_line}: a sweep has one name")
            if override.is_interval_sweep():
                raise ValueError(f"{override.input_line}: a grid wants single values, as {key}=1,2 or {key}=range(1,3)")
            try:
                empty = override.is_discrete_sweep() and not any(True for _ in override.sweep_string_iterator())
            except ValueError as error:
                raise ValueError(f"{override.input_line}: {error}") from error
            if empty:
                raise ValueError(f"{override.input_line}: there is nothing that this matches")
        return grid(overrides)


@contextmanager
def _noted(config: DictConfig, folder: Path) -> Iterator[None]:
    """`config` as multirun.yaml in a sweep's folder; neither is left behind by a sweep that is refused."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / "multirun.yaml")
    try:
        yield
    except (HydraException, ValueError):
        if folder in made and not (folder / "plan.json").exists():
            (folder / "multirun.yaml").unlink(missing_ok=True)
            for path in made:
                with suppress(OSError):
                    path.rmdir()
        raise
