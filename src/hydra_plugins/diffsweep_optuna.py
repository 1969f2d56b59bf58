"""`hydra/sweeper=optuna`: search instead of a grid, see `diffsweep.sweep.search`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, ListConfig, OmegaConf

from diffsweep.messages import print_lines

if TYPE_CHECKING:
    from diffsweep.sweep.search.study import Search


class OptunaSweeper(Sweeper):
    """Searches the space that overrides and `params` span.

    Args:
        direction: minimize or maximize, or one for each objective.
        objective: Keys of result.json; null for the run's main metric.
        n_trials: Trials in the end, >= 1.
        n_workers: Processes that work at once, >= 1; null for one per GPU, or one.
        study_name: Folder below sweeps/; null for `sweep.name`, or the time.
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
        self.direction, self.objective = direction, objective
        self.n_trials, self.n_workers = n_trials, n_workers
        self.storage, self.seed = storage, seed
        self.sampler, self.pruner = sampler, pruner
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
        from hydra.utils import instantiate

        from diffsweep.entry import sweep_end
        from diffsweep.entry.trial import Worker
        from diffsweep.entry.trial_check import refuse_impossible_trials
        from diffsweep.messages import say
        from diffsweep.mistakes import compact
        from diffsweep.sweep.execute.local_pool import MachineResources
        from diffsweep.sweep.plan.folders import runs_folder
        from diffsweep.sweep.plan.option_keys import dropped_keys
        from diffsweep.sweep.search import supervisor
        from diffsweep.sweep.search.space import described
        from diffsweep.sweep.search.workers import WorkerLauncher, make_workers

        assert self.config is not None
        assert self.hydra_context is not None
        with compact():
            runs_folder(self.config)
            search = self._search(arguments)
            launcher = instantiate(self.config.hydra.launcher)
            elsewhere = isinstance(launcher, WorkerLauncher)
            # A typing error is found here, before anything is written.
            here = not elsewhere and not MachineResources.detect().gpus
            plan = refuse_impossible_trials(search, self.hydra_context.config_loader, self.config, devices=here)
            cfg = OmegaConf.create(plan.config(plan.tasks[0].cell))
            values = {key: described(one) for key, one in search.distributions.items()}
            for _, sentence in dropped_keys([task.overrides for task in plan.tasks], values):
                say(f"note: {sentence}")
            if not _runs(cfg, search):
                return
            if search.objectives.keys:
                from diffsweep.runs.result_numbers import number_keys

                search.objectives.check(number_keys(cfg))
            sources = [Path(source.path) for source in self.config.hydra.runtime.config_sources if source.path]
            search, snapshot = supervisor.prepare(search, [path for path in sources if path.is_absolute()])
            sweep_end.remember(search.folder, search.runs)
            OmegaConf.save(self.config, search.folder / "multirun.yaml")
            detach = isinstance(launcher, WorkerLauncher) and launcher.detaches
            code = supervisor.run(search, make_workers(search, launcher, snapshot, Worker), detach=detach)
        if code:
            raise SystemExit(code)

    def _search(self, arguments: Sequence[str]) -> Search:
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from diffsweep.project import train_command
        from diffsweep.sweep.execute.local_pool import MachineResources
        from diffsweep.sweep.plan.folders import sweep_name, valid_name
        from diffsweep.sweep.plan.hydra_job import hydra_node
        from diffsweep.sweep.plan.override_text import params_text
        from diffsweep.sweep.search.objectives import Objectives
        from diffsweep.sweep.search.search import Composition, Search
        from diffsweep.sweep.search.space import space
        from diffsweep.sweep.search.strategy import Strategy
        from diffsweep.sweep.store.override_words import option_folders

        assert self.config is not None
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        distributions, fixed = space(parser.parse_overrides([*params_text(self.params), *arguments]))
        runs, folder = Path(self.config.paths.runs).absolute(), Path(self.config.hydra.sweep.dir).absolute()
        sweep_name(self.config)
        if self.study_name is not None:
            folder = runs / "sweeps" / valid_name(self.study_name, "study_name")
        shown = tuple(option_folders(self.config.hydra))
        n_workers = max(1, len(MachineResources.detect().gpus)) if self.n_workers is None else self.n_workers
        storage = self.storage or ""
        return Search(
            folder,
            runs,
            distributions,
            Composition(fixed, hydra_node(self.config), shown=shown),
            Objectives(_several(self.objective), _several(self.direction)),
            Strategy(_named(self.sampler), _named(self.pruner), self.seed),
            self.n_trials,
            n_workers,
            storage if "://" in storage or not storage else str(Path(storage).absolute()),
            train_command(*sys.argv[1:]),
        )


def _several(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(map(str, value)) if isinstance(value, (list, tuple, ListConfig)) else (str(value),)


def _named(value: Any) -> dict[str, Any]:
    if isinstance(value, DictConfig):
        value = OmegaConf.to_container(value, resolve=True)
    return dict(value) if isinstance(value, Mapping) else {"name": str(value)}


def _runs(cfg: DictConfig, search: Search) -> bool:
    """Whether anything is to run; else what `mode` asks for is done. Raises ValueError for what no search can do."""
    from diffsweep.messages import say
    from diffsweep.sweep.plan.mode import Mode
    from diffsweep.sweep.search.space import described

    mode, trainer = Mode.of(cfg), cfg.trainer
    if mode.forces:
        raise ValueError("mode=force does not go with a search: a finished trial keeps its values")
    devices = trainer.devices if isinstance(trainer.devices, int) else 1
    if devices * trainer.num_nodes > 1:
        raise ValueError(
            f"trainer.devices={trainer.devices} trainer.num_nodes={trainer.num_nodes}: a search trains each trial on "
            "one device, and several trials at once: hydra.sweeper.n_workers"
        )
    if mode.fetches_data:
        from diffsweep.runs.prefetch import prefetch

        print_lines(prefetch(cfg))
    elif not mode.runs_jobs:
        say(f"study {search.name}: {search.n_trials} trials of")
        for key, distribution in search.distributions.items():
            say(f"  {key}={described(distribution)}")
    return mode.runs_jobs
