"""The process that looks after a search: it starts workers, puts back what dead ones held, and tells how it ends.

It hands out no work, so a search whose launcher is killed goes on until its workers find no more trials; the same
command, or `resume`, then looks after what is left.
"""

from __future__ import annotations

import itertools
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from diffsweep.sweep import slurm, snapshot
from diffsweep.sweep.cluster import Policy, resources
from diffsweep.sweep.files import atomic
from diffsweep.sweep.jobs import Job, Launched
from diffsweep.sweep.lease import Busy, Lease
from diffsweep.sweep.plan import Plan, Signed
from diffsweep.sweep.pool import Room
from diffsweep.sweep.process import Process, terminable
from diffsweep.sweep.record import Run
from diffsweep.sweep.search import Search, is_search
from diffsweep.sweep.signature import resolved

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial
    from rich.table import Table

# Folder and number -> what the worker of that number runs.
Make = Callable[[Path, int], Callable[[], object]]

_PAUSE = 0.25
_STOPPING = 60.0
_SHOWN = 10
_PLANNED = 5.0


class Crew(Protocol):
    """Whoever can have workers started. `stays`: they go on when this process is interrupted."""

    @property
    def stays(self) -> bool: ...

    def start(self, indices: Sequence[int]) -> None:
        """Start workers of these numbers."""
        ...

    def alive(self) -> set[int]:
        """Those that it has started and that are not over."""
        ...

    def log(self, index: int) -> Path:
        """What a worker says."""
        ...

    def stop(self) -> None:
        """Stop all of them, with their state saved."""
        ...


@dataclass
class Local:
    """Workers as processes of this machine, each with its share of cores and GPUs; they outlive this process."""

    search: Search
    source: Path
    room: Room = field(default_factory=Room.here)
    stays: bool = False
    _running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, indices: Sequence[int]) -> None:
        """Start workers of these numbers. Raises OSError."""
        for index in indices:
            log = self.log(index)
            log.parent.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "diffsweep.trial", str(self.search.folder.absolute()), str(index)]
            with log.open("ab") as stream:
                self._running[index] = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=stream,
                    env=os.environ | self._share(index) | snapshot.environment(self.source),
                    cwd=self.search.hydra["runtime"]["cwd"],
                    # Ctrl-C is for this process, which then asks them to stop.
                    start_new_session=True,
                )

    def _share(self, index: int) -> dict[str, str]:
        share = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(self.threads)}
        if self.room.gpus:
            share["CUDA_VISIBLE_DEVICES"] = self.room.gpus[index % len(self.room.gpus)]
        return share

    @property
    def threads(self) -> int:
        """CPU threads of a worker, unless the user has said how many."""
        return max(1, self.room.cores // self.search.n_workers)

    def alive(self) -> set[int]:
        """Those that are not over."""
        return {index for index, process in self._running.items() if process.poll() is None}

    def log(self, index: int) -> Path:
        """What a worker says."""
        return self.search.folder / "logs" / f"worker-{index}.log"

    def stop(self) -> None:
        """Ask all of them to save their state and end; kill those that do not within a minute."""
        for index in self.alive():
            with suppress(ProcessLookupError):
                self._running[index].send_signal(signal.SIGTERM)
        end = time.monotonic() + _STOPPING
        for process in self._running.values():
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass
class OnSlurm:
    """Workers as one array of SLURM jobs; they need nobody to wait for them."""

    search: Search
    source: Path
    policy: Policy
    resources: slurm.Resources
    worker: Make
    stays: bool = True
    _ids: dict[int, str] = field(default_factory=dict)
    _alive: set[int] = field(default_factory=set)
    _asked: float = 0.0

    def start(self, indices: Sequence[int]) -> None:
        """Submit workers of these numbers. Raises ValueError if SLURM refuses."""
        folder = self.search.folder.absolute()

        def note(ids: Mapping[int, str]) -> None:
            self._ids.update({indices[place]: name for place, name in ids.items()})
            # They are neither fits nor cells; what matters is that whoever cancels the study finds them.
            jobs = tuple(Job("finish", id=name, log=f"slurm/{name}_0_log.out") for name in self._ids.values())
            Launched("slurm", jobs, None if self.policy.detach else Process.current()).write(self.search.folder)

        slurm.submit(
            [slurm.Work(self.worker(folder, index), f"worker-{index}", self.resources) for index in indices],
            folder / "slurm",
            throttle=self.policy.throttle,
            environment=snapshot.environment(self.source),
            signal_seconds=self.policy.signal_seconds,
            requeues=self.policy.requeues,
            job_name=f"diffsweep:{self.search.name}",
            on_submitted=note,
        )
        self._alive.update(indices)
        self._asked = time.monotonic()

    def alive(self) -> set[int]:
        """Those that SLURM has not seen end, asked every `poll_seconds`; jobs that wait for a node count."""
        if self._ids and time.monotonic() - self._asked >= self.policy.poll_seconds:
            self._asked = time.monotonic()
            queue = slurm.queue(self._ids.values())
            if queue is not None:
                self._alive = {index for index, name in self._ids.items() if name in queue}
        return set(self._alive)

    def log(self, index: int) -> Path:
        """What a worker says."""
        return self.search.folder / "slurm" / f"{self._ids.get(index)}_0_log.out"

    def stop(self) -> None:
        """Cancel all of them. Raises ValueError if SLURM cannot be told."""
        slurm.cancel(self._ids.values())


def crew(search: Search, source: Path, worker: Make) -> Crew:
    """The crew that the search's launcher stands for. `worker` makes what a worker runs, of folder and number.

    Raises ValueError for SLURM where there is none, and for bad resources.
    """
    launcher = search.hydra.get("launcher") or {}
    if not str(launcher.get("_target_", "")).endswith(".SlurmLauncher"):
        return Local(search, source)
    if not slurm.available():
        raise ValueError("hydra/launcher=slurm needs sbatch, which is not here: hydra/launcher=local runs here")
    policy = Policy(**{one.name: launcher[one.name] for one in fields(Policy)})
    plan = Plan(search.folder, search.runs).adding([signed(search, search.example())])
    cell = next(iter(plan.cells.values()))
    return OnSlurm(search, source, policy, resources(plan, Job("fit", cell.fit, (cell.cell,))), worker)


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
                _say(f"{search.n_workers} workers are at it; the same command looks after them and shows the table")
                return 0
            keeper.keep()
        except (KeyboardInterrupt, SystemExit):
            if crew.stays:
                _say("the workers go on without this process; the same command looks after them")
                _say(f"to stop them: diffsweep cancel {search.name}")
            else:
                _say("stopping the workers; what they do is saved")
                crew.stop()
                keeper.man(most=0)
                _say(f"the same command goes on, or: diffsweep resume {search.name}")
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
            _say(f"study {search.name}: {len(self.known)} of {len(trials)} trials are done already")
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
                self.bar.write(_line(self.search, trial), file=sys.stderr)
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


def conclude(search: Search, study: Study) -> int:
    """Write optimization_results.yaml, show the best trials; 1 if any failed, else 0."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    if complete:
        _write_yaml(search.folder / "optimization_results.yaml", _solutions(search, study))
        show(search, study)
    for trial in failed:
        _say(f"trial {trial.number} failed: {trial.user_attrs.get('reason', 'no reason was recorded')}")
        _say(f"  {' '.join(search.overrides(trial.params))}")
    return 1 if failed else 0


def signed(search: Search, params: Mapping[str, Any]) -> Signed:
    """The cell that parameters ask for. Raises Hydra's exceptions, ValueError."""
    overrides = search.overrides(params)
    cfg, choices = search.compose(overrides)
    config = resolved(cfg)
    run = Run.of(config)
    return Signed(overrides, config, choices, run.fit.signature, run.cell.signature)


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
                self.signed[trial.number] = signed(self.search, trial.params)
        search = self.search
        plan = Plan(search.folder, search.runs.absolute(), search.command, hydra=search.hydra)
        # Parameters that make no difference are a result of a search, not a slip of its user.
        replace(plan.adding(self.signed[number] for number in sorted(self.signed)), warnings=()).write()
        self.written = time.monotonic()


def _solutions(search: Search, study: Study) -> dict[str, Any]:
    if len(search.directions) == 1:
        best = study.best_trial
        return {"name": "optuna", "best_evaluated_params": best.params, "best_evaluated_result": best.value}
    front = [{"params": trial.params, "values": list(trial.values)} for trial in study.best_trials]
    return {"name": "optuna", "solutions": front}


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    from omegaconf import OmegaConf

    with atomic(path) as temporary:
        OmegaConf.save(OmegaConf.create(dict(content)), temporary)


def show(search: Search, study: Study) -> None:
    """Print the best trials, or the Pareto front, and the command that repeats the first of them."""
    from importlib.util import find_spec

    from optuna.trial import TrialState
    from rich.console import Console
    from rich.text import Text

    counts = dict.fromkeys(TrialState, 0)
    for trial in study.get_trials(deepcopy=False):
        counts[trial.state] += 1
    said = [f"{counts[state]} {state.name.lower()}" for state in TrialState if counts[state]]
    console = Console()
    # Lines for grep and awk are never wrapped; rich takes a pipe for 80 columns wide.
    console = console if console.is_terminal else Console(width=10_000)
    console.print(Text(f"study {search.name}: {', '.join(said)}"))
    best = study.best_trials if len(search.directions) > 1 else [study.best_trial]
    front = {trial.number for trial in best}
    console.print(_table(search, study, front, console.is_terminal))
    if len(search.directions) > 1:
        console.print(Text(f"* on the Pareto front: no trial is better in every objective ({len(front)} trials)"))
    words = [*search.shown, *search.overrides(best[0].params)]
    console.print(Text(f"best           python train.py {shlex.join(words)}"), soft_wrap=True)
    console.print(Text(f"its record     {best[0].user_attrs.get('result')}"), soft_wrap=True)
    if find_spec("optuna_dashboard") is not None:
        console.print(Text(f"pictures       optuna-dashboard {search.journal}"), soft_wrap=True)


def _table(search: Search, study: Study, front: set[int], terminal: bool) -> Table:
    from optuna.trial import TrialState
    from rich import box
    from rich.table import Table
    from rich.text import Text

    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    sign = -1 if search.directions[0] == "maximize" else 1
    trials.sort(key=lambda trial: (trial.number not in front, sign * trial.values[0]))
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False)
    columns = ["trial", *_objectives(search, trials[0]), *search.space]
    for place, name in enumerate(columns):
        table.add_column(Text(name), justify="left" if place > len(search.directions) else "right", overflow="fold")
    for trial in trials[: max(_SHOWN, len(front))]:
        mark = "*" if trial.number in front and len(search.directions) > 1 else ""
        cells = [f"{mark}{trial.number}", *map(_number, trial.values)]
        cells += [_number(trial.params.get(key)) for key in search.space]
        table.add_row(*map(Text, cells), style="bold" if trial.number in front and terminal else None)
    return table


def _objectives(search: Search, trial: FrozenTrial) -> tuple[str, ...]:
    return search.objective or (str(trial.user_attrs.get("metric", "value")),)


def _line(search: Search, trial: FrozenTrial) -> str:
    from optuna.trial import TrialState

    params = " ".join(f"{key}={_number(value)}" for key, value in trial.params.items())
    if trial.state == TrialState.COMPLETE:
        pairs = zip(_objectives(search, trial), trial.values, strict=True)
        said = "  ".join(f"{name} {_number(value)}" for name, value in pairs)
    elif trial.state == TrialState.PRUNED:
        said = f"pruned at step {trial.last_step}: {_number(trial.intermediate_values.get(trial.last_step or 0))}"
    else:
        said = f"failed: {trial.user_attrs.get('reason', 'no reason was recorded')}"
    return f"trial {trial.number}  {said}  {params}"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def last_line(log: Path) -> str:
    """The last line of a log, "no word" if there is none."""
    with suppress(OSError):
        lines = log.read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "no word")
    return "no word"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
