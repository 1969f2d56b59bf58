"""What a search is: a space written as Hydra overrides, goals, and a study that processes share through one journal.

The study holds exactly `n_trials` trials from the start: slots that wait. A worker takes a slot (the journal lets only
one have it), fills it with parameters, and tells its values. What a killed worker leaves is put back as it was, with
its parameters, so nothing is counted twice and nothing is lost. Samplers that look at no results (grid, random,
qmc) fill the slots beforehand: with a seed, they ask for the same trials whatever the number of workers.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import warnings
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.files import read_bytes, read_json, write_atomic, write_json
from diffsweep.sweep import slurm
from diffsweep.sweep.plan.plan import Signed
from diffsweep.sweep.search.space import axis, suggest
from diffsweep.sweep.store.lease import Busy, Lease
from diffsweep.sweep.store.process import Process
from diffsweep.sweep.store.record import Run
from diffsweep.sweep.store.signature import resolved

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

SAMPLERS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "gp": "GPSampler",
    "cmaes": "CmaEsSampler",
    "nsgaii": "NSGAIISampler",
    "grid": "RandomSampler",
    "qmc": "QMCSampler",
}
PRUNERS = ("none", "asha", "median")
DIRECTIONS = ("minimize", "maximize")

# They look at no results, so their trials are known beforehand.
_AHEAD = ("grid", "random", "qmc")
# A trial whose process is killed this often is what kills it.
_ATTEMPTS = 3
# Longer than a holder of a lease on another host may be silent.
PATIENCE = 75.0


class Mistake(ValueError):
    """The search itself is wrong: no further trial can mend it."""


@dataclass(frozen=True)
class Search:
    """The frozen description of a search: search.json in its folder.

    Attributes:
        folder: Of the study; its name is the study's.
        runs: The folder of all records.
        space: Overridden key -> Optuna's distribution, as JSON.
        fixed: Overrides that all trials have.
        hydra: The launching config's node, plain.
        configs: Folders to compose from, the main one first; below `folder`, for edits must not reach later trials.
        objective: Keys of result.json; empty for the run's main metric.
        directions: minimize or maximize, one for each objective.
        n_trials: Trials in the end, >= 1, failed and pruned ones included.
        n_workers: Processes, >= 1.
        sampler: `name`, one of SAMPLERS, and what its Optuna class takes.
        pruner: `name`, one of PRUNERS, and its settings, as in conf/hydra/sweeper/pruner.
        seed: Of the sampler; null draws one.
        storage: A journal file; empty for journal.log in the folder.
        shown: What the commands that are suggested must begin with: --config-dir.
        command: What the user typed.

    Raises:
        ValueError: in one line, for what is unknown, out of range, or does not go together.
    """

    folder: Path
    runs: Path
    space: Mapping[str, str]
    fixed: tuple[str, ...] = ()
    hydra: Mapping[str, Any] = field(default_factory=dict)
    configs: tuple[str, ...] = ()
    objective: tuple[str, ...] = ()
    directions: tuple[str, ...] = ("minimize",)
    n_trials: int = 20
    n_workers: int = 1
    sampler: Mapping[str, Any] = field(default_factory=lambda: {"name": "tpe"})
    pruner: Mapping[str, Any] = field(default_factory=lambda: {"name": "none"})
    seed: int | None = None
    storage: str = ""
    shown: tuple[str, ...] = ()
    command: str = ""

    def __post_init__(self) -> None:
        for key, value in (("n_trials", self.n_trials), ("n_workers", self.n_workers)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"hydra.sweeper.{key}={value} must be a whole number, 1 or more")
        _known("sampler", self.sampler.get("name"), SAMPLERS)
        _known("pruner", self.pruner.get("name"), PRUNERS)
        for direction in self.directions:
            _known("direction", direction, DIRECTIONS)
        if len(self.directions) != (len(self.objective) or 1):
            raise ValueError(
                f"hydra.sweeper.direction names {len(self.directions)} directions and hydra.sweeper.objective "
                f"{len(self.objective)} objectives: give one direction for each objective"
            )
        if len(set(self.objective)) < len(self.objective):
            raise ValueError(f"hydra.sweeper.objective={_listed(self.objective)} names one objective twice")
        if not self.space:
            raise ValueError(
                "nothing to search: give at least one choice or range, as 'optimizer.lr=tag(log,interval(1e-5,1e-2))'"
            )
        if "://" in self.storage:
            # SQLite, for one, gives one trial to two processes.
            raise ValueError(f"hydra.sweeper.storage={self.storage} is a database: give a journal file, or null")
        several = len(self.directions) > 1
        if several and self.pruner["name"] != "none":
            raise ValueError(f"pruner={self.pruner['name']} judges by one objective, not {len(self.directions)}")
        if several and self.sampler["name"] == "cmaes":
            raise ValueError("sampler=cmaes has one objective: choose nsgaii, tpe or gp for several")
        self._make_sampler("")
        self.make_pruner()
        if self.sampler["name"] == "grid":
            self._points()

    @property
    def name(self) -> str:
        """The study's name."""
        return self.folder.name

    @property
    def journal(self) -> Path:
        """The file that the study lies in."""
        return Path(self.storage) if self.storage else self.folder / "journal.log"

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The space, as Optuna has it."""
        from optuna.distributions import json_to_distribution

        return {key: json_to_distribution(text) for key, text in self.space.items()}

    def write(self) -> None:
        """Write search.json. Raises CannotWriteError."""
        write_json(self.folder / "search.json", asdict(self) | {"folder": str(self.folder), "runs": str(self.runs)})

    @classmethod
    def read(cls, folder: str | Path) -> Search:
        """The search in a folder. Raises ValueError if there is none, or it cannot be read."""
        content = read_json(Path(folder) / "search.json")
        if content is None:
            raise ValueError(f"{folder} holds no search: there is no search.json")
        try:
            typed: dict[str, Any] = {
                key: tuple(content[key]) for key in ("fixed", "configs", "objective", "directions", "shown")
            }
            typed |= {"folder": Path(folder), "runs": Path(content["runs"])}
            return cls(**{**content, **typed})
        except (KeyError, TypeError) as error:
            raise ValueError(f"{folder}/search.json is no search that this version can read ({error!r})") from error

    def same(self, other: Search) -> str:
        """In what another search of this name differs so that their trials cannot be one study; empty if in nothing."""
        keys = ("space", "fixed", "objective", "directions")
        return _listed([key for key in keys if getattr(self, key) != getattr(other, key)])

    def open(self, salt: str = "", *, create: bool = False) -> Study:
        """The study. `salt` makes the sampler's random numbers this process's own. Raises ValueError, OSError."""
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        path = str(self.journal.absolute())
        # An exclusive creation works on network disks, where other locks are often lies.
        storage = JournalStorage(JournalFileBackend(path, JournalFileOpenLock(path)))
        settings: dict[str, Any] = {"sampler": self._make_sampler(salt), "pruner": self.make_pruner()}
        if create:
            settings |= {"directions": self.directions, "load_if_exists": True}
            return optuna.create_study(study_name=self.name, storage=storage, **settings)
        return optuna.load_study(study_name=self.name, storage=storage, **settings)

    def _make_sampler(self, salt: str) -> BaseSampler:
        import optuna

        options = {key: value for key, value in self.sampler.items() if key != "name"}
        name = str(self.sampler["name"])
        seed = None
        if self.seed is not None:
            digest = hashlib.blake2b(f"{self.seed}/{salt}".encode(), digest_size=4).hexdigest()
            seed = int(digest, 16)
        if name == "qmc":
            options["warn_asynchronous_seeding"] = False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return getattr(optuna.samplers, SAMPLERS[name])(seed=seed, **options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"sampler={name}: {error}") from error

    def make_pruner(self) -> BasePruner:
        """Optuna's pruner. Raises ValueError for settings that it does not take."""
        from optuna import pruners

        name = self.pruner["name"]
        if name == "none":
            return pruners.NopPruner()
        try:
            first, factor = self.pruner.get("min_steps") or 1, self.pruner["reduction_factor"]
            if not isinstance(factor, int) or factor < 2:
                raise ValueError(f"reduction_factor={factor} must be a whole number, 2 or more")
            if not isinstance(self.pruner["samples"], int) or self.pruner["samples"] < 2:
                raise ValueError(f"samples={self.pruner['samples']} must be a whole number, 2 or more")
            if name == "asha":
                return pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=factor)
            return pruners.MedianPruner(n_startup_trials=self.pruner["startup_trials"])
        except KeyError as error:
            raise ValueError(f"pruner={name} lacks {error}: choose it by hydra/sweeper/pruner={name}") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"pruner={name}: {error}") from error

    def rungs(self, steps: int) -> tuple[int, ...]:
        """The training steps after which a trial of so many steps is judged; none without a pruner.

        min_steps times powers of the reduction factor; min_steps=null stands for steps / factor^3.
        """
        if self.pruner["name"] == "none":
            return ()
        factor = self.pruner["reduction_factor"]
        rung = self.pruner.get("min_steps") or max(1, steps // factor**3)
        found = []
        while rung < steps:
            found.append(rung)
            rung *= factor
        return tuple(found)

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """All overrides of a trial."""
        return [*self.fixed, *(f"{key}={_text(params[key])}" for key in self.space if key in params)]

    def example(self) -> dict[str, Any]:
        """Parameters of the space, the same ones always."""
        return {key: axis(key, one, some=True)[0] for key, one in self.distributions.items()}

    def compose(self, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str | None]]:
        """The config that overrides ask for, and the option of each group; Hydra's state stays as it was.

        Raises Hydra's exceptions for overrides that it refuses.
        """
        from hydra import compose, initialize_config_dir
        from hydra.core.global_hydra import GlobalHydra
        from omegaconf import OmegaConf, flag_override

        main, *others = (str((self.folder / path).absolute()) for path in self.configs)
        path = [f"hydra.searchpath=[{','.join(f'file://{other}' for other in others)}]"] if others else []
        job = self.hydra["job"]
        state = GlobalHydra.instance()
        ours, state.hydra = state.hydra, None
        try:
            with initialize_config_dir(main, version_base=self.hydra["runtime"].get("version_base") or "1.3"):
                cfg = compose(job["config_name"], [*path, *overrides], return_hydra_config=True)
        finally:
            state.hydra = ours
        choices: Any = OmegaConf.to_container(cfg.hydra.runtime.choices)
        with flag_override(cfg, ["struct", "readonly"], False):
            del cfg["hydra"]
        return cfg, choices

    def signed(self, params: Mapping[str, Any]) -> Signed:
        """The cell that parameters ask for. Raises Hydra's exceptions, ValueError."""
        overrides = self.overrides(params)
        cfg, choices = self.compose(overrides)
        config = resolved(cfg)
        run = Run.of(config)
        return Signed(overrides, config, choices, run.fit.signature, run.cell.signature)

    def values(self, result: Mapping[str, Any]) -> list[float]:
        """What a result is worth: its number for each objective.

        Raises Mistake for an objective that results do not have, ValueError for one that is not finite here.
        """
        values = []
        for key in self.objective or (str(result["metric"]),):
            value = result.get(key)
            if f"{key}_reason" in result:
                raise ValueError(f"{key} is {result[f'{key}_reason']}")
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                numbers = [name for name, one in result.items() if isinstance(one, (int, float)) and one is not True]
                raise Mistake(f"hydra.sweeper.objective={key} is no number of a result: choose from {_listed(numbers)}")
            values.append(float(value))
        return values

    def fill(self, study: Study) -> None:
        """Add slots until the study has `n_trials` trials; kills of earlier launches are no longer held against one.

        For one process at a time.
        """
        import optuna

        trials = study.get_trials(deepcopy=False)
        for trial in trials:
            if not trial.state.is_finished() and trial.user_attrs.get("attempts"):
                study._storage.set_trial_user_attr(self._id(trial, study._storage), "attempts", 0)
        there = len(trials)
        points = self._points()[there:] if self.sampler["name"] in _AHEAD else [None] * (self.n_trials - there)
        for point in points:
            if point is None:
                study.add_trial(optuna.create_trial(state=optuna.trial.TrialState.WAITING))
            else:
                study.enqueue_trial(point)

    def _points(self) -> list[dict[str, Any]]:
        import optuna

        if self.sampler["name"] == "grid":
            axes = [axis(key, distribution) for key, distribution in self.distributions.items()]
            grid = itertools.product(*axes)
            return [dict(zip(self.distributions, point, strict=True)) for point in grid][: self.n_trials]
        # A study of its own that lives in memory: here nobody asks at the same time.
        study = optuna.create_study(sampler=self._make_sampler(""))
        points = []
        for _ in range(self.n_trials):
            trial = study.ask(self.distributions)
            study.tell(trial, 0.0)
            points.append(trial.params)
        return points

    def take(self, study: Study, storage: BaseStorage) -> Trial | None:
        """Take a slot that waits, for this process alone, and give it its parameters; None if there is none."""
        import optuna

        for waiting in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,)):
            number = self._id(waiting, storage)
            try:
                # `Study.ask` does the same, but makes a new trial where none waits.
                if not storage.set_trial_state_values(number, optuna.trial.TrialState.RUNNING):
                    continue
            except optuna.exceptions.UpdateFinishedTrialError:
                continue
            trial = optuna.Trial(study, number)
            for key, distribution in self.distributions.items():
                suggest(trial, key, distribution)
            return trial
        return None

    def put_back(self, trial: FrozenTrial, storage: BaseStorage, *, killed: bool) -> bool:
        """Let a trial that nobody works at wait again, with its parameters.

        Returns False if it had too many processes `killed`, and failed by that.
        """
        from optuna.trial import TrialState

        number = self._id(trial, storage)
        attempts = trial.user_attrs.get("attempts", 0) + killed
        storage.set_trial_user_attr(number, "attempts", attempts)
        # Whoever takes it next is not to be judged by its predecessor.
        storage.set_trial_user_attr(number, "worker", None)
        if attempts < _ATTEMPTS:
            storage.set_trial_state_values(number, TrialState.WAITING)
            return True
        storage.set_trial_user_attr(number, "reason", f"its process was killed {attempts} times")
        storage.set_trial_state_values(number, TrialState.FAIL)
        return False

    def _id(self, trial: FrozenTrial, storage: BaseStorage) -> int:
        return storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(self.name), trial.number)

    def worker_folder(self, index: int) -> Path:
        """Where a worker has its lease, which tells that it lives."""
        return self.folder / "workers" / str(index)

    def workers(self) -> dict[int, Process]:
        """All workers that are not known to be dead, as far as one look tells."""
        found = {}
        for path in (self.folder / "workers").glob("*"):
            holder = Lease(path).holder() if path.name.isdigit() else None
            if holder is not None:
                found[int(path.name)] = holder
        return found

    def silent(self) -> set[int]:
        """Workers on other hosts that are dead: SLURM no longer has their job, or no sign of life for a minute."""
        elsewhere = {index: holder for index, holder in self.workers().items() if holder.alive() is None}
        if not elsewhere:
            return set()
        jobs = {index: holder.slurm_job for index, holder in elsewhere.items() if holder.slurm_job}
        queue = slurm.queue(jobs.values()) if jobs and slurm.available() else None
        dead = {index for index, job in jobs.items() if queue is not None and job not in queue}
        unknown = [index for index in elsewhere if index not in dead and (queue is None or index not in jobs)]
        if unknown:
            with ThreadPoolExecutor(len(unknown)) as pool:
                dead |= {index for index, gone in zip(unknown, pool.map(self._silent, unknown), strict=True) if gone}
        return dead

    def _silent(self, index: int) -> bool:
        try:
            Lease(self.worker_folder(index)).acquire(wait=PATIENCE).release()
        except Busy:
            return False
        return True

    def lost(self, trial: FrozenTrial, dead: Set[int]) -> bool:
        """Whether a running trial has no process any more; `dead`: workers that are known to be."""
        index, process = trial.user_attrs.get("worker"), Process.parse(trial.user_attrs.get("process") or {})
        if index is None or process is None:
            # Killed, or still between taking the slot and saying so.
            return not set(self.workers()) - dead
        return index in dead or Lease(self.worker_folder(index)).holder() != process

    def mend(self) -> None:
        """Drop lines of the journal that a killed writer left half; only while no worker lives."""
        if not self.journal.exists():
            return
        lines = read_bytes(self.journal).split(b"\n")
        whole = [line for line in lines if _is_json(line)]
        if len(whole) < len(lines) - 1 or lines[-1]:
            write_atomic(self.journal, b"".join(line + b"\n" for line in whole))


def is_search(folder: str | Path) -> bool:
    """Whether a sweep's folder holds a search, which `seek.resume` resumes."""
    return (Path(folder) / "search.json").exists()


def _text(value: Any) -> str:
    """A parameter in the grammar of overrides."""
    return str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else repr(value)


def _known(what: str, value: Any, valid: Sequence[str] | Mapping[str, Any]) -> None:
    if value not in valid:
        raise ValueError(f"{what}={value} is unknown: choose one of {_listed(list(valid))}")


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words)


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def valid_name(name: str) -> str:
    """A study's name, which names a folder. Raises ValueError if it cannot."""
    if not re.fullmatch(r"[\w][\w.+-]{0,99}", name):
        raise ValueError(f"study_name={name} must be letters, digits and . _ + - only: it names a folder")
    return name
