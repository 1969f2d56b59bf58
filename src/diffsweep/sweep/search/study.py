"""The study of a search, which its processes share through one journal file.

The study holds exactly `n_trials` trials from the start, as slots that wait. A worker takes a slot (the journal gives
it to one worker only), fills it with parameters and tells its values. A slot whose worker was killed waits again, with
its parameters, so no trial is counted twice and none is lost. Samplers that ignore results (grid, random, qmc) fill
the slots beforehand: with a seed, the trials are the same whatever the number of workers.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.files import read_bytes, write_atomic
from diffsweep.sweep.search.search import Search
from diffsweep.sweep.search.space import axis, suggest

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, TrialState

# A trial whose process was killed this often fails.
_ATTEMPTS = 3
# Name of the study's attribute that says why no further trial can succeed.
_MISTAKE = "mistake"


@dataclass(frozen=True)
class SearchStudy:
    """Optuna's study of a search, opened by one process."""

    search: Search
    study: Study
    storage: BaseStorage

    @classmethod
    def open(cls, search: Search, salt: str = "", *, create: bool = False) -> SearchStudy:
        """The study of `search`.

        `salt` makes the sampler's random numbers differ between processes; `create` makes a study that is not there.
        Raises ValueError, OSError.
        """
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        search.journal.parent.mkdir(parents=True, exist_ok=True)
        path = str(search.journal.absolute())
        # An exclusive creation works on network disks, where other locks often do not.
        storage = JournalStorage(JournalFileBackend(path, JournalFileOpenLock(path)))
        settings: dict[str, Any] = {
            "sampler": search.strategy.make_sampler(salt),
            "pruner": search.strategy.make_pruner(),
        }
        if create:
            settings |= {"directions": search.objectives.directions, "load_if_exists": True}
            study = optuna.create_study(study_name=search.name, storage=storage, **settings)
        else:
            study = optuna.load_study(study_name=search.name, storage=storage, **settings)
        return cls(search, study, study._storage)

    @property
    def mistake(self) -> str | None:
        """Why no further trial can succeed; None if they can."""
        return self.study.user_attrs.get(_MISTAKE)

    def set_mistake(self, reason: str | None) -> None:
        """Say why no further trial can succeed."""
        self.study.set_user_attr(_MISTAKE, reason)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials in one of these states, all trials for none; not to be changed."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def fill(self) -> None:
        """Add slots until the study has `n_trials` trials, and forget how often trials were killed before.

        For one process at a time.
        """
        import optuna

        trials = self.trials()
        for trial in trials:
            if not trial.state.is_finished() and trial.user_attrs.get("attempts"):
                self.storage.set_trial_user_attr(self._id(trial), "attempts", 0)
        there = len(trials)
        points: Sequence[Mapping[str, Any] | None] = [None] * (self.search.n_trials - there)
        if self.search.strategy.knows_trials_ahead:
            points = known_points(self.search)[there:]
        for point in points:
            if point is None:
                self.study.add_trial(optuna.create_trial(state=optuna.trial.TrialState.WAITING))
            else:
                self.study.enqueue_trial(dict(point))

    def take(self) -> Trial | None:
        """Take a waiting slot, for this process alone, and give it its parameters; None if none waits."""
        import optuna
        from optuna.trial import TrialState

        for waiting in self.trials(TrialState.WAITING):
            number = self._id(waiting)
            try:
                # `Study.ask` does the same, but makes a new trial where none waits.
                if not self.storage.set_trial_state_values(number, TrialState.RUNNING):
                    continue
            except optuna.exceptions.UpdateFinishedTrialError:
                continue
            trial = optuna.Trial(self.study, number)
            for key, distribution in self.search.distributions.items():
                suggest(trial, key, distribution)
            return trial
        return None

    def put_back(self, trial: FrozenTrial, *, killed: bool) -> bool:
        """Let a trial that no process works on wait again, with its parameters.

        `killed`: whether its process was. Returns False if that happened too often; the trial has then failed.
        """
        from optuna.trial import TrialState

        number = self._id(trial)
        attempts = trial.user_attrs.get("attempts", 0) + killed
        self.storage.set_trial_user_attr(number, "attempts", attempts)
        # Else the next worker that takes it would be judged by this one's lease.
        self.storage.set_trial_user_attr(number, "worker", None)
        if attempts < _ATTEMPTS:
            self.storage.set_trial_state_values(number, TrialState.WAITING)
            return True
        self.storage.set_trial_user_attr(number, "reason", f"its process was killed {attempts} times")
        self.storage.set_trial_state_values(number, TrialState.FAIL)
        return False

    def _id(self, trial: FrozenTrial) -> int:
        study = self.storage.get_study_id_from_name(self.search.name)
        return self.storage.get_trial_id_from_study_id_trial_number(study, trial.number)


def mend_journal(journal: Path) -> None:
    """Drop lines that a killed writer left incomplete; only while no worker lives."""
    if not journal.exists():
        return
    lines = read_bytes(journal).split(b"\n")
    whole = [line for line in lines if _is_json(line)]
    if len(whole) < len(lines) - 1 or lines[-1]:
        write_atomic(journal, b"".join(line + b"\n" for line in whole))


def known_points(search: Search) -> list[dict[str, Any]]:
    """The parameters of all trials, of a sampler that ignores results."""
    import optuna

    if search.strategy.is_grid:
        axes = [axis(key, distribution) for key, distribution in search.distributions.items()]
        grid = itertools.product(*axes)
        return [dict(zip(search.distributions, point, strict=True)) for point in grid][: search.n_trials]
    # A study of its own in memory, which no other process uses.
    study = optuna.create_study(sampler=search.strategy.make_sampler(""))
    points = []
    for _ in range(search.n_trials):
        trial = study.ask(search.distributions)
        study.tell(trial, 0.0)
        points.append(trial.params)
    return points


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
