"""The frozen description of a search, search.json: its space, objectives and strategy, and the parts of its configs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from diffsweep.files import read_json, write_json
from diffsweep.former_names import with_current_keys
from diffsweep.sweep.plan.added_parameters import accept_added_parameters
from diffsweep.sweep.plan.option_keys import OptionConfig, OptionKeys, key_of
from diffsweep.sweep.plan.plan import SignedConfig
from diffsweep.sweep.plan.unread_keys import refuse_unread
from diffsweep.sweep.search.objectives import Objectives
from diffsweep.sweep.search.space import axis, described
from diffsweep.sweep.search.strategy import Strategy
from diffsweep.sweep.store.environment import recorded
from diffsweep.sweep.store.record import Run

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from optuna.distributions import BaseDistribution, FloatDistribution

# Of so many combinations of choices each is checked before a search starts.
_PROBES = 64


@dataclass(frozen=True)
class Composition:
    """What the configs of all trials are composed of.

    Attributes:
        fixed: Overrides that all trials have.
        hydra: The launching config's `hydra` node, as plain containers.
        configs: Folders to compose from, the main one first; below the search's folder, where later edits of the
            originals do not reach them.
        shown: Words that suggested commands begin with: --config-dir.
    """

    fixed: tuple[str, ...] = ()
    hydra: Mapping[str, Any] = field(default_factory=dict)
    configs: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()


class TrialConfig(NamedTuple):
    """What a trial runs: its config, the option of each group, and those of its overrides that apply."""

    config: DictConfig
    choices: dict[str, str | None]
    overrides: list[str]


@dataclass(frozen=True)
class Search:
    """The frozen description of a search.

    Attributes:
        folder: Of the study; its name is the study's.
        runs: The folder of all records.
        space: Overridden key -> Optuna's distribution, as JSON.
        composition: What the configs of all trials are composed of.
        objectives: The numbers that it improves.
        strategy: How it chooses parameters and stops trials early.
        n_trials: Trials in the end, >= 1, failed and pruned ones included.
        n_workers: Processes, >= 1.
        storage: A journal file; empty for journal.log in the folder.
        command: What the user typed.

    Raises:
        ValueError: in one line, for what is out of range, or does not go together.
    """

    folder: Path
    runs: Path
    space: Mapping[str, str]
    composition: Composition = field(default_factory=Composition)
    objectives: Objectives = field(default_factory=Objectives)
    strategy: Strategy = field(default_factory=Strategy)
    n_trials: int = 20
    n_workers: int = 1
    storage: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        for key, value in (("n_trials", self.n_trials), ("n_workers", self.n_workers)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"hydra.sweeper.{key}={value} must be a whole number, 1 or more")
        if not self.space:
            raise ValueError(
                "nothing to search: give at least one choice or range, as 'optimizer.lr=tag(log,interval(1e-5,1e-2))'"
            )
        if "://" in self.storage:
            # SQLite, for one, gives one trial to two processes.
            raise ValueError(f"hydra.sweeper.storage={self.storage} is a database: give a journal file, or null")
        self.strategy.check_objectives(len(self.objectives.directions))
        if self.strategy.is_grid:
            for key, distribution in self.distributions.items():
                axis(key, distribution)

    @property
    def name(self) -> str:
        """The study's name."""
        return self.folder.name

    @property
    def journal(self) -> Path:
        """The file that the study lies in."""
        return Path(self.storage) if self.storage else self.folder / "journal.log"

    @property
    def cwd(self) -> Path:
        """The folder in which the user typed the command."""
        return Path(self.composition.hydra["runtime"]["cwd"])

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The space, as Optuna has it."""
        from optuna.distributions import json_to_distribution

        return {key: json_to_distribution(text) for key, text in self.space.items()}

    def write(self) -> None:
        """Write search.json. Raises CannotWriteError."""
        composition, objectives, strategy = self.composition, self.objectives, self.strategy
        content = {
            "folder": str(self.folder),
            "runs": str(self.runs),
            "space": dict(self.space),
            "fixed": composition.fixed,
            "hydra": dict(composition.hydra),
            "configs": composition.configs,
            "objective": objectives.keys,
            "directions": objectives.directions,
            "n_trials": self.n_trials,
            "n_workers": self.n_workers,
            "sampler": dict(strategy.sampler),
            "pruner": dict(strategy.pruner),
            "seed": strategy.seed,
            "storage": self.storage,
            "shown": composition.shown,
            "command": self.command,
        }
        write_json(self.folder / "search.json", content)

    @classmethod
    def read(cls, folder: str | Path) -> Search:
        """The search in a folder. Raises ValueError if there is none, or it cannot be read."""
        folder = Path(folder)
        content = read_json(folder / "search.json")
        if content is None:
            raise ValueError(f"{folder} holds no search: there is no search.json")
        try:
            return cls(
                folder,
                Path(content["runs"]),
                content["space"],
                Composition(
                    tuple(content["fixed"]), content["hydra"], tuple(content["configs"]), tuple(content["shown"])
                ),
                Objectives(tuple(content["objective"]), tuple(content["directions"])),
                Strategy(content["sampler"], content["pruner"], content["seed"]),
                content["n_trials"],
                content["n_workers"],
                content["storage"],
                content["command"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{folder}/search.json is no search that this version can read ({error!r})") from error

    def differences(self, other: Search) -> str:
        """In what another search of this name differs so that their trials are not comparable, each in a few words."""
        found = []
        for key in dict.fromkeys([*self.space, *other.space]):
            if self.space.get(key) != other.space.get(key):
                was, now = (
                    described(search.distributions[key]) if key in search.space else "not searched"
                    for search in (self, other)
                )
                found.append(f"{key} was {was}, now {now}")
        ours, theirs = set(self.composition.fixed), set(other.composition.fixed)
        found += [f"{word} is no longer there" for word in self.composition.fixed if word not in theirs]
        found += [f"{word} is new" for word in other.composition.fixed if word not in ours]
        for name, was, now in (
            ("objective", self.objectives.keys, other.objectives.keys),
            ("direction", self.objectives.directions, other.objectives.directions),
        ):
            if was != now:
                found.append(f"hydra.sweeper.{name} was {', '.join(was) or 'null'}, now {', '.join(now) or 'null'}")
        return "; ".join(found)

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """All overrides of a trial with these parameters, those included that its options do not know."""
        return [*self.composition.fixed, *(f"{key}={_text(params[key])}" for key in self.space if key in params)]

    def example(self) -> dict[str, Any]:
        """Parameters of the space, always the same ones."""
        return {key: axis(key, one, some=True)[0] for key, one in self.distributions.items()}

    def probes(self) -> list[list[str]]:
        """Overrides of trials that together have what a search can run into: what is checked before it starts.

        Every combination of choices or, where there are too many, every pair; both ends of every range, and
        of an interval also a number in it that is hardly whole.
        """
        axes = {key: axis(key, one, some=True) for key, one in self.distributions.items()}
        ranges = {key: values for key, values in axes.items() if not self._has_choices(key)}
        choices = {key: values for key, values in axes.items() if key not in ranges}
        first = self.example()
        pairs = itertools.combinations(choices, 2) if math.prod(map(len, choices.values())) > _PROBES else [choices]
        found = [
            first | dict(zip(keys, values, strict=True))
            for keys in (*pairs, *([key] for key in choices))
            for values in itertools.product(*(choices[key] for key in keys))
        ]
        found += [first | {key: high} for key in ranges for high in (self.distributions[key].high,)]  # type: ignore[attr-defined]
        found += [first | {key: one.low + (one.high - one.low) / math.e} for key, one in self._intervals()]
        return list(map(list, dict.fromkeys(tuple(self.overrides(params)) for params in found)))

    def _intervals(self) -> Iterator[tuple[str, FloatDistribution]]:
        from optuna.distributions import FloatDistribution

        for key, one in self.distributions.items():
            if isinstance(one, FloatDistribution) and one.step is None:
                yield key, one

    def _has_choices(self, key: str) -> bool:
        from optuna.distributions import CategoricalDistribution

        return isinstance(self.distributions[key], CategoricalDistribution)

    def compose(self, overrides: Sequence[str]) -> TrialConfig:
        """What overrides ask for; Hydra's state stays as it was.

        A word whose key only other options of the space know is left out, see `plan.option_keys`. Raises Hydra's
        exceptions for overrides that it refuses, ValueError for a key that nothing reads.
        """
        from hydra import initialize_config_dir
        from hydra.core.global_hydra import GlobalHydra

        accept_added_parameters()
        main, *others = (str((self.folder / path).absolute()) for path in self.composition.configs)
        path = [f"hydra.searchpath=[{','.join(f'file://{other}' for other in others)}]"] if others else []
        hydra = self.composition.hydra
        state = GlobalHydra.instance()
        ours, state.hydra = state.hydra, None
        try:
            with initialize_config_dir(main, version_base=hydra["runtime"].get("version_base") or "1.3"):
                name = hydra["job"]["config_name"]
                try:
                    return TrialConfig(*_checked(name, [*path, *overrides]), list(overrides))
                except Exception:
                    applying = self._applying(overrides, name, path)
                    if applying == tuple(overrides):
                        raise
                    return TrialConfig(*_checked(name, [*path, *applying]), list(applying))
        finally:
            state.hydra = ours

    def _applying(self, overrides: Sequence[str], name: str, path: list[str]) -> tuple[str, ...]:
        from hydra.core.global_hydra import GlobalHydra
        from omegaconf import OmegaConf

        loader = GlobalHydra.instance().config_loader()

        def load(options: tuple[str, ...]) -> OptionConfig:
            cfg, choices = _composed(name, [*path, *options])
            plain: Any = OmegaConf.to_container(cfg, resolve=False)
            return OptionConfig(plain, choices)

        def is_group(key: str) -> bool:
            return bool(loader.get_group_options(key, None, name, path))

        groups = [key for key in self.space if self._has_choices(key) and is_group(key)]
        others = [
            [f"{key}={_text(option)}" if key_of(word) == key else word for word in overrides]
            for key in groups
            for option in axis(key, self.distributions[key])
        ]
        return OptionKeys(load, is_group).applying(overrides, others)

    def signed(self, params: Mapping[str, Any]) -> SignedConfig:
        """The signed config of a trial with these parameters. Raises Hydra's exceptions, ValueError."""
        found = self.compose(self.overrides(params))
        run = Run.of(found.config)
        return SignedConfig(
            found.overrides,
            recorded(found.config),
            found.choices,
            run.fit.signature,
            run.cell.signature,
            None if run.autoencoder is None else run.autoencoder.signature,
        )


def _composed(name: str, overrides: list[str]) -> tuple[DictConfig, dict[str, str | None]]:
    from hydra import compose
    from omegaconf import OmegaConf, flag_override

    cfg = compose(name, overrides, return_hydra_config=True)
    choices: Any = OmegaConf.to_container(cfg.hydra.runtime.choices)
    with flag_override(cfg, ["struct", "readonly"], False):
        del cfg["hydra"]
    if OmegaConf.select(cfg, "training.drop_labels") is not None:
        # Of the options of a study that an earlier version began.
        cfg = OmegaConf.create(with_current_keys(OmegaConf.to_container(cfg)))  # type: ignore[arg-type]
    return cfg, choices


def _checked(name: str, overrides: list[str]) -> tuple[DictConfig, dict[str, str | None]]:
    cfg, choices = _composed(name, overrides)
    refuse_unread(cfg)
    return cfg, choices


def is_search(folder: str | Path) -> bool:
    """Whether a sweep's folder holds a search, which `supervisor.resume` resumes."""
    return (Path(folder) / "search.json").exists()


def _text(value: Any) -> str:
    """A parameter in the grammar of overrides."""
    return str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else repr(value)
