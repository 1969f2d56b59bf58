"""The process that looks after a search: it starts workers, puts back what dead ones held, and tells how it ends.

It hands out no work, so a search whose launcher is killed goes on until its workers find no more trials; the same
command, or `resume`, then looks after what is left.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.messages import say
from diffsweep.sweep.plan import snapshot
from diffsweep.sweep.plan.jobs import Launched
from diffsweep.sweep.plan.plan import Plan, Signed
from diffsweep.sweep.search.study import Search, is_search
from diffsweep.sweep.search.summary import conclude, line
from diffsweep.sweep.search.workers import Crew, Make, crew
from diffsweep.sweep.store.lease import Busy, Lease
from diffsweep.sweep.store.process import Process, terminable

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

_PAUSE = 0.25
_PLANNED = 5.0


def begin(search: Search, cwd: Path, configs: Sequence[Path]) -> tuple[Search, Path]:
    """Freeze a search that is new, or find the one of its name; with the source that its workers run from.

    Raises ValueError if that name stands for another search, CannotWriteError.
    """
    before = Search.read(search.folder) if is_search(search.folder) else None
    if before is None and (search.folder / "plan.json").exists():
        raise ValueError(f"study_name={search.name} is the name of a sweep: choose another")
    if before is not None and (different := before.same(search)):
        raise ValueError(f"study_name={search.name} is another search: {different} differ; choose another study_name")
    source = snapshot.take(search.folder, cwd, tuple(configs))
    if before is None:
        below = source.relative_to(search.folder) / "conf"
        search = replace(search, configs=tuple(str(below / str(place or "main")) for place in range(len(configs))))
    else:
        # Edits of the YAML between two launches must not make two kinds of trials.
        search = replace(search, configs=before.configs)
    search.write()
    return search, source


def resume(folder: str | Path, worker: Make) -> int:
    """Go on with the search in `folder`; the exit code. `worker` as in `crew`. Raises ValueError as `run`."""
    search = Search.read(folder)
    source = snapshot.take(search.folder, Path(search.hydra["runtime"]["cwd"]))
    return run(search, crew(search, source, worker))


def run(search: Search, crew: Crew, *, detach: bool = False) -> int:
    """Look after a search to its end and tell how it ended; the exit code: 0, or 1 if trials failed.

    `detach`: return once workers are started. Raises ValueError if somebody else looks after it already, for a mistake
    that only a worker could find, and if workers die before they do anything; KeyboardInterrupt and SystemExit with
    the workers stopped.
    """
    lease = Lease(search.folder / "workers")
    try:
        held = lease.acquire(wait=False)
    except Busy as busy:
        raise ValueError(f"study {search.name} is being looked after by {busy.holder}: wait for it") from busy
    with held, terminable():
        if not search.workers():
            search.mend()
        study = search.open("launcher", create=True)
        study.set_user_attr("mistake", None)
        search.fill(study)
        if not crew.stays:
            Launched("local", (), Process.current()).write(search.folder)
        keeper = _Keeper(search, study, crew)
        try:
            if detach:
                keeper.man()
                say(f"{search.n_workers} workers are at it; the same command looks after them and shows the table")
                return 0
            keeper.keep()
        except (KeyboardInterrupt, SystemExit):
            if crew.stays:
                say("the workers go on without this process; the same command looks after them")
                say(f"to stop them: diffsweep cancel {search.name}")
            else:
                say("stopping the workers; what they do is saved")
                crew.stop()
                keeper.man(most=0)
                say(f"the same command goes on, or: diffsweep resume {search.name}")
            raise
        except BaseException:
            crew.stop()
            raise
        finally:
            keeper.close()
        if (launched := Launched.read(search.folder)) is not None:
            launched.end(search.folder)
        keeper.plan.show(study.get_trials(deepcopy=False), now=True)
        return conclude(search, study)


class _Keeper:
    """One look after the other, until no trial waits or runs."""

    def __init__(self, search: Search, study: Study, crew: Crew) -> None:
        from tqdm import tqdm

        self.search, self.study, self.crew = search, study, crew
        self.plan = _Planned(search)
        trials = study.get_trials(deepcopy=False)
        self.known = {trial.number for trial in trials if trial.state.is_finished()}
        self.deaths = 0
        self.started: set[int] = set()
        self.dead = search.silent()
        if self.known:
            say(f"study {search.name}: {len(self.known)} of {len(trials)} trials are done already")
        self.bar: Any = tqdm(
            desc="search",
            total=len(trials),
            initial=len(self.known),
            unit="trial",
            disable=None,
            dynamic_ncols=True,
        )

    def keep(self) -> None:
        """Return when every trial is over."""
        while True:
            if said := self.study.user_attrs.get("mistake"):
                raise ValueError(said)
            waiting, running, workers = self.man()
            if not waiting and not running and not self.crew.alive():
                return
            if running and not waiting and not workers:
                # Only workers that another host had are left, and nothing but their silence tells.
                self.dead |= self.search.silent()
            time.sleep(_PAUSE)

    def man(self, most: int | None = None) -> tuple[int, int, int]:
        """Look once, and start the workers that are missing; how many trials wait and run, and how many work.

        `most`: workers to have, instead of the search's own number.
        """
        alive = self.crew.alive()
        over = self.started - alive
        self.started -= over
        self.dead = (self.dead | over) - alive
        self.deaths += len(over)
        waiting, running = self.look()
        if self.deaths > 3 * self.search.n_workers + 3:
            log = self.crew.log(max(over, default=0))
            raise ValueError(f"workers end before they finish a trial: {last_line(log)} ({log})")
        holders = set(self.search.workers())
        present = alive | (holders - self.dead)
        wanted = min(waiting, (self.search.n_workers if most is None else most) - len(present))
        if wanted > 0:
            # A dead worker of another host seems to have its number still.
            free = (index for index in itertools.count() if index not in alive | holders)
            indices = list(itertools.islice(free, wanted))
            self.crew.start(indices)
            self.started.update(indices)
            self.dead.difference_update(indices)
        return waiting, running, len(present)

    def look(self) -> tuple[int, int]:
        """Tell what has ended, put back what is lost; how many wait and run now."""
        from optuna.trial import TrialState

        trials = self.study.get_trials(deepcopy=False)
        counts = dict.fromkeys(TrialState, 0)
        for trial in trials:
            counts[trial.state] += 1
            if trial.state.is_finished() and trial.number not in self.known:
                self.known.add(trial.number)
                self.deaths = 0
                self.bar.update()
                self.bar.write(line(self.search, trial), file=sys.stderr)
            elif trial.state == TrialState.RUNNING and self.search.lost(trial, self.dead):
                again = self.search.put_back(trial, self.study._storage, killed=True)
                self.bar.write(
                    f"trial {trial.number}: its process is dead; {'it waits again' if again else 'given up'}",
                    file=sys.stderr,
                )
                counts[TrialState.RUNNING] -= 1
                counts[TrialState.WAITING] += again
        self.plan.show(trials)
        return counts[TrialState.WAITING], counts[TrialState.RUNNING]

    def close(self) -> None:
        """Leave the terminal as it was."""
        self.bar.close()


class _Planned:
    """plan.json: the cells of finished trials, so that whoever reads sweeps finds them; none of what was pruned."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.signed: dict[int, Signed] = {}
        self.written = -math.inf

    def show(self, trials: Sequence[FrozenTrial], *, now: bool = False) -> None:
        """Write it if there is news; not too often, unless it must be `now`."""
        from optuna.trial import TrialState

        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        news = len(complete) > len(self.signed) or self.written < 0
        if not news or (time.monotonic() - self.written < _PLANNED and not now):
            return
        for trial in complete:
            if trial.number not in self.signed:
                self.signed[trial.number] = self.search.signed(trial.params)
        search = self.search
        plan = Plan(search.folder, search.runs.absolute(), search.command, hydra=search.hydra)
        # Parameters that make no difference are a result of a search, not a slip of its user.
        replace(plan.adding(self.signed[number] for number in sorted(self.signed)), warnings=()).write()
        self.written = time.monotonic()


def last_line(log: Path) -> str:
    """The last line of a log, "no word" if there is none."""
    with suppress(OSError):
        lines = log.read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "no word")
    return "no word"
