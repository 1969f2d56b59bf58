"""`hydra/sweeper=optuna`: search instead of a grid, see `diffsweep.sweep.search`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, ListConfig, OmegaConf

if TYPE_CHECKING:
    from diffsweep.sweep.search.study import Search


class OptunaSweeper(Sweeper):
    """Searches the space that overrides and `params` span.

    Args:
        direction: minimize or maximize, or one for each objective.
        objective: Keys of result.json; null for the run's main metric.
        n_trials: Trials in the end, >= 1.
        n_workers: Processes that work at once, >= 1; null for one per GPU, or one.
        study_name: Folder below sweeps/; null for the time.
        storage: A journal file; null for journal.log in that folder.
        sampler: A name, or a mapping with `name` and what Optuna's class takes.
        pruner: Likewise.
        seed: Of the sampler; null draws one.
        params: Overridden key -> choices or range, in Hydra's grammar; the command line has the last word.
    """

    def __init__(
        self,
        direction: str | Sequence[str] = "minimize",
        objective: str | Sequence[str] | None = None,
        n_trials: int = 20,
        n_workers: int | None = None,
        study_name: str | None = None,
        storage: str | None = None,
        sampler: str | Mapping[str, Any] = "tpe",
        pruner: str | Mapping[str, Any] = "none",
        seed: int | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        self.asked: dict[str, Any] = {
            "directions": _several(direction),
            "objective": _several(objective),
            "n_trials": n_trials,
            "n_workers": n_workers,
            "storage": str(Path(storage).absolute()) if storage and "://" not in storage else storage or "",
            "sampler": _named(sampler),
            "pruner": _named(pruner),
            "seed": seed,
        }
        self.study_name = study_name
        self.params = params
        self.hydra_context: HydraContext | None = None
        self.config: DictConfig | None = None
        self.launcher = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        # As written: for whoever makes this object, Hydra has put the launching config's values in their place.
        self.params = config.hydra.sweeper.get("params")

    def sweep(self, arguments: list[str]) -> None:
        """Search to the end. Raises CompactHydraException, in one line, for a user's mistake, SystemExit(1) if trials
        failed.
        """
        from diffsweep.entry.trial import Worker
        from diffsweep.mistakes import compact
        from diffsweep.sweep.search import supervisor
        from diffsweep.sweep.search.workers import crew

        assert self.config is not None
        assert self.hydra_context is not None
        with compact():
            search = self._search(arguments)
            # A typing error is found here, before anything is written.
            overrides = search.overrides(search.example())
            cfg = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
            if not _allowed(cfg, search):
                return
            runtime = self.config.hydra.runtime
            sources = [Path(source.path) for source in runtime.config_sources if source.path]
            configs = [path for path in sources if path.is_absolute()]
            search, source = supervisor.begin(search, Path(runtime.cwd), configs)
            OmegaConf.save(self.config, search.folder / "multirun.yaml")
            detach = bool(self.config.hydra.launcher.get("detach", False))
            code = supervisor.run(search, crew(search, source, Worker), detach=detach)
        if code:
            raise SystemExit(code)

    def _search(self, arguments: Sequence[str]) -> Search:
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from diffsweep.sweep.execute.local_pool import Room
        from diffsweep.sweep.plan.hydra_job import frozen
        from diffsweep.sweep.plan.override_text import params_text
        from diffsweep.sweep.search.space import space
        from diffsweep.sweep.search.study import Search, valid_name

        assert self.config is not None
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        distributions, fixed = space(parser.parse_overrides([*params_text(self.params), *arguments]))
        runs, folder = Path(self.config.paths.runs).absolute(), Path(self.config.hydra.sweep.dir).absolute()
        if self.study_name is not None:
            folder = runs / "sweeps" / valid_name(str(self.study_name))
        sources = self.config.hydra.runtime.config_sources
        shown = tuple(f"--config-dir={source.path}" for source in sources if source.provider == "command-line")
        workers = self.asked["n_workers"]
        if workers is None:
            workers = max(1, len(Room.here().gpus))
        return Search(
            folder,
            runs,
            distributions,
            fixed,
            frozen(self.config),
            shown=shown,
            command=shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
            **{**self.asked, "n_workers": workers},
        )


def _several(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(map(str, value)) if isinstance(value, (list, tuple, ListConfig)) else (str(value),)


def _named(value: Any) -> dict[str, Any]:
    if isinstance(value, DictConfig):
        value = OmegaConf.to_container(value, resolve=True)
    return dict(value) if isinstance(value, Mapping) else {"name": str(value)}


def _allowed(cfg: DictConfig, search: Search) -> bool:
    """Whether anything is to run. Raises ValueError for what does not go with a search."""
    mode, trainer = cfg.get("mode", "retry"), cfg.trainer
    if mode == "force":
        raise ValueError("mode=force does not go with a search: a trial that is finished tells what it told")
    devices = trainer.devices if isinstance(trainer.devices, int) else 1
    if devices * trainer.num_nodes > 1:
        raise ValueError(
            f"trainer.devices={trainer.devices} trainer.num_nodes={trainer.num_nodes}: a search trains each trial on "
            "one device, and several trials at once: hydra.sweeper.n_workers"
        )
    if mode == "prefetch":
        from diffsweep.runs.prefetch import prefetch

        print(prefetch(cfg), flush=True)
        return False
    if mode in ("plan", "read_only"):
        print(f"study {search.name}: {search.n_trials} trials of", file=sys.stderr)
        for key, distribution in search.distributions.items():
            print(f"  {key}: {distribution}", file=sys.stderr)
        return False
    return True
