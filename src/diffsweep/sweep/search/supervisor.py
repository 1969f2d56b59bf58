"""The supervisor of a search: it starts workers, puts back the trials of dead ones, and reports how the search ends.

It hands out no trials, so a search whose launcher is killed goes on until its workers find no more of them; the same
command, or `diffsweep resume`, then supervises what is left.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.messages import printable, say
from diffsweep.sweep.plan import snapshot
from diffsweep.sweep.plan.jobs import LaunchRecord
from diffsweep.sweep.plan.plan import Plan, SignedConfig
from diffsweep.sweep.plan.user_modules import dotted_names_in
from diffsweep.sweep.search.search import Search, is_search
from diffsweep.sweep.search.study import SearchStudy, mend_journal
from diffsweep.sweep.search.summary import conclude, trial_line
from diffsweep.sweep.search.worker_leases import WorkerLeases
from diffsweep.sweep.search.workers import MakeWorker, Workers, make_workers
from diffsweep.sweep.store.lease import Busy
from diffsweep.sweep.store.process import Process, terminable

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# Seconds between two checks of the workers, and between two writes of plan.json.
_PAUSE = 0.25
_PLAN_SECONDS = 5.0


def prepare(search: Search, config_folders: Sequence[Path]) -> tuple[Search, Path]:
    """Freeze a new search, or find the one of its name; returns it with the snapshot that its workers run from.

    `config_folders`: to compose from, the main one first. Raises ValueError if that name stands for another search,
    CannotWriteError.
    """
    before = Search.read(search.folder) if is_search(search.folder) else None
    if before is None and (search.folder / "plan.json").exists():
        raise ValueError(f"{search.name} is the name of a sweep: choose another name for this search")
    if before is not None and (different := before.differences(search)):
        raise ValueError(f"{search.name} is the name of another search: {different}: choose another name")
    source = snapshot.take(search.folder, search.cwd, tuple(config_folders), _names(search))
    if before is None:
        copies = snapshot.config_copies(source, len(config_folders))
        configs = tuple(str(path.relative_to(search.folder)) for path in copies)
    else:
        # Edits of the YAML between two launches must not make two kinds of trials.
        configs = before.composition.configs
    search = replace(search, composition=replace(search.composition, configs=configs))
    search.write()
    return search, source


def _names(search: Search) -> set[str]:
    """Dotted names in the description of a search: of classes that its trials import, the user's own among them."""
    return set(dotted_names_in(json.dumps(asdict(search), default=str)))


def resume(folder: str | Path, launcher: object, make_worker: MakeWorker, n_trials: int | None = None) -> int:
    """Go on with the search in `folder`, with workers of the Hydra launcher `launcher`; returns the exit code.

    `n_trials`: how many trials it shall have in the end, at least as many as before; None for as many.

    Raises ValueError as `run`, and for fewer trials.
    """
    search = Search.read(folder)
    if n_trials is not None:
        if n_trials < search.n_trials:
            raise ValueError(f"--trials {n_trials}: study {search.name} has {search.n_trials} already; ask for more")
        search = replace(search, n_trials=n_trials)
        search.write()
    folders = tuple(search.folder / path for path in search.composition.configs)
    source = snapshot.take(search.folder, search.cwd, names={*_names(search), *snapshot.names_in_yaml(folders)})
    return run(search, make_workers(search, launcher, source, make_worker))


def run(search: Search, workers: Workers, *, detach: bool = False) -> int:
    """Supervise a search to its end and report how it ended; returns the exit code: 0, or 1 if trials failed.

    `detach`: return once workers are started. Raises ValueError if another process supervises it already, for a mistake
    that only a worker could find, and if workers die before they do anything; KeyboardInterrupt and SystemExit with
    the workers stopped.
    """
    leases = WorkerLeases(search.folder)
    try:
        held = leases.supervisor.acquire(wait=False)
    except Busy as busy:
        raise ValueError(f"study {search.name} is being looked after by {busy.holder}: wait for it") from busy
    with held, terminable():
        if not leases.holders():
            mend_journal(search.journal)
        study = SearchStudy.open(search, "launcher", create=True)
        study.set_mistake(None)
        study.fill()
        if not workers.outlive_launcher:
            LaunchRecord("local", (), Process.current()).write(search.folder)
        supervisor = Supervisor(study, leases, workers)
        try:
            if detach:
                supervisor.start_missing_workers()
                say(f"{search.n_workers} workers run; the same command waits for them and shows the table")
                return 0
            supervisor.wait()
        except (KeyboardInterrupt, SystemExit):
            if workers.outlive_launcher:
                say("the workers go on without this process; the same command waits for them")
                say(f"to stop them: diffsweep cancel {search.name}")
            else:
                say("stopping the workers; what they do is saved")
                workers.stop()
                supervisor.start_missing_workers(wanted=0)
                say(f"the same command goes on, or: diffsweep resume {search.name}")
            raise
        except BaseException:
            workers.stop()
            raise
        finally:
            supervisor.close()
        if (launch := LaunchRecord.read(search.folder)) is not None:
            launch.end(search.folder)
        supervisor.plan.update(study.trials(), at_once=True)
        return conclude(study)


def end_without_launcher(study: SearchStudy) -> bool:
    """Report how a search ended if all of its trials are over and no launcher supervises it, as one that has detached.

    Returns whether it did: the last worker is to write the table then.
    """
    from optuna.trial import TrialState

    search = study.search
    if study.mistake or study.trials(TrialState.WAITING) or study.trials(TrialState.RUNNING):
        return False
    try:
        held = WorkerLeases(search.folder).supervisor.acquire(wait=False)
    except Busy:
        return False
    with held:
        _PlanWriter(search).update(study.trials(), at_once=True)
        conclude(study)
        if (launch := LaunchRecord.read(search.folder)) is not None:
            launch.end(search.folder)
    return True


class Supervisor:
    """Supervises the workers of a search until no trial waits or runs."""

    def __init__(self, study: SearchStudy, leases: WorkerLeases, workers: Workers) -> None:
        from tqdm import tqdm

        self.study, self.leases, self.workers = study, leases, workers
        self.search = study.search
        self.plan = _PlanWriter(self.search)
        trials = study.trials()
        self.finished = {trial.number for trial in trials if trial.state.is_finished()}
        # Workers that ended since a trial was last finished; workers that this process started; workers that are dead.
        self.ends = 0
        self.started: set[int] = set()
        self.dead = leases.dead_elsewhere()
        if self.finished:
            say(f"study {self.search.name}: {len(self.finished)} of {len(trials)} trials are done already")
        self.bar: Any = tqdm(
            desc="search",
            total=len(trials),
            initial=len(self.finished),
            unit="trial",
            disable=None,
            dynamic_ncols=True,
        )

    def wait(self) -> None:
        """Return when every trial is over. Raises ValueError for a mistake that a worker found."""
        while True:
            if mistake := self.study.mistake:
                raise ValueError(mistake)
            waiting, running, present = self.start_missing_workers()
            if not waiting and not running and not self.workers.alive():
                return
            if running and not waiting and not present:
                # Only workers of another host are left, and only a missing heartbeat tells that they are dead.
                self.dead |= self.leases.dead_elsewhere()
            time.sleep(_PAUSE)

    def start_missing_workers(self, wanted: int | None = None) -> tuple[int, int, int]:
        """Check trials and workers once, and start the workers that are missing.

        `wanted`: the number of workers to have, by default that of the search. Returns how many trials wait and run,
        and how many workers live. Raises ValueError if workers end again and again without finishing a trial.
        """
        alive = self.workers.alive()
        over = self.started - alive
        self.started -= over
        self.dead = (self.dead | over) - alive
        self.ends += len(over)
        waiting, running = self.check_trials()
        if self.ends > 3 * self.search.n_workers + 3:
            log = self.workers.log(max(over, default=0))
            raise ValueError(f"workers end before they finish a trial: {last_line(log)} ({log})")
        holders = set(self.leases.holders())
        present = alive | (holders - self.dead)
        missing = min(waiting, (self.search.n_workers if wanted is None else wanted) - len(present))
        if missing > 0:
            # A dead worker of another host may still seem to have its number.
            free = (index for index in itertools.count() if index not in alive | holders)
            indices = list(itertools.islice(free, missing))
            self.workers.start(indices)
            self.started.update(indices)
            self.dead.difference_update(indices)
        return waiting, running, len(present)

    def check_trials(self) -> tuple[int, int]:
        """Report trials that have ended and put back those that lost their worker; returns how many wait and run."""
        from optuna.trial import TrialState

        trials = self.study.trials()
        counts = dict.fromkeys(TrialState, 0)
        for trial in trials:
            counts[trial.state] += 1
            if trial.state.is_finished() and trial.number not in self.finished:
                self.finished.add(trial.number)
                self.ends = 0
                self.bar.update()
                self.bar.write(printable(trial_line(self.search, trial)), file=sys.stderr)
            elif trial.state == TrialState.RUNNING and self.leases.lost(trial, self.dead):
                again = self.study.put_back(trial, killed=True)
                self.bar.write(
                    f"trial {trial.number}: its process is dead; {'it waits again' if again else 'given up'}",
                    file=sys.stderr,
                )
                counts[TrialState.RUNNING] -= 1
                counts[TrialState.WAITING] += again
        self.plan.update(trials)
        return counts[TrialState.WAITING], counts[TrialState.RUNNING]

    def close(self) -> None:
        """Leave the terminal as it was."""
        self.bar.close()


class _PlanWriter:
    """Writes plan.json of a search: the cells of its complete trials, for the commands that read sweeps."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.signed: dict[int, SignedConfig] = {}
        self.time = -math.inf

    def update(self, trials: Sequence[FrozenTrial], *, at_once: bool = False) -> None:
        """Write it if trials were completed since, every few seconds at most, or `at_once`."""
        from optuna.trial import TrialState

        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        news = len(complete) > len(self.signed) or self.time < 0
        if not news or (time.monotonic() - self.time < _PLAN_SECONDS and not at_once):
            return
        for trial in complete:
            if trial.number not in self.signed:
                self.signed[trial.number] = self.search.signed(trial.params)
        search = self.search
        plan = Plan(search.folder, search.runs.absolute(), search.command, hydra=search.composition.hydra)
        # Without warnings: parameters that change no result are a result of a search, not a mistake of its user.
        replace(plan.with_tasks(self.signed[number] for number in sorted(self.signed)), warnings=()).write()
        self.time = time.monotonic()


def last_line(log: Path) -> str:
    """The last line of a log, "no word" if there is none."""
    with suppress(OSError):
        lines = log.read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "no word")
    return "no word"
