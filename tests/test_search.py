"""Searches with real processes, real trainings and real kills, and what the study says in the end."""

from __future__ import annotations

import inspect
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

import brake
import diffsweep.runs.stages as stages
import forked_runs
from diffsweep.entry import trial as trials_of
from diffsweep.entry.trial import Worker
from diffsweep.files import write_json
from diffsweep.sweep import slurm
from diffsweep.sweep.execute.local_pool import MachineResources
from diffsweep.sweep.plan.jobs import LaunchRecord
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.search import supervisor
from diffsweep.sweep.search.objectives import Objectives
from diffsweep.sweep.search.search import Composition, Search
from diffsweep.sweep.search.space import space
from diffsweep.sweep.search.strategy import SAMPLERS, Strategy
from diffsweep.sweep.search.study import SearchStudy, mend_journal
from diffsweep.sweep.search.worker_leases import WorkerLeases
from diffsweep.sweep.search.workers import LocalWorkers
from diffsweep.sweep.store.lease import Lease
from diffsweep.sweep.store.process import Process
from diffsweep.sweep.store.record import Run
from diffsweep.training.scoring_callbacks import PruningPolicy, TrainingPruned
from slurm import Cluster

ROOT = Path(__file__).parent.parent
TINY = (
    "dataset=mixture",
    "dataset.size=1000",
    "backbone=mlp",
    "backbone.width=16",
    "backbone.depth=1",
    "training.batch_size=32",
    "training.warmup=10",
    "training.steps=20",
    "evaluation.samples=64",
    "trainer.threads=1",
    "trainer.progress=false",
)
# Seconds that a step may take on a machine that is busy with other things.
PATIENCE = 400
ASHA = {"name": "asha", "min_steps": 5, "reduction_factor": 2, "samples": 50}
slow = pytest.mark.slow


def parsed(*overrides: str) -> tuple[dict[str, str], tuple[str, ...]]:
    return space(OverridesParser.create().parse_overrides(list(overrides)))


def searching(folder: Path, *overrides: str, **settings: Any) -> Search:
    distributions, fixed = parsed(*TINY, f"paths.runs={folder / 'runs'}", *overrides)
    hydra = {"runtime": {"cwd": str(folder), "version_base": "1.3"}, "job": {"config_name": "config"}}
    configs = (str(ROOT / "conf"),)
    goals: dict[str, Any] = {
        name: settings.pop(key) for key, name in (("objective", "keys"), ("directions",) * 2) if key in settings
    }
    choices: dict[str, Any] = {"seed": 0} | {
        key: settings.pop(key) for key in ("sampler", "pruner", "seed") if key in settings
    }
    search = Search(
        folder / "runs/sweeps/study",
        folder / "runs",
        distributions,
        Composition(fixed, hydra, configs),
        Objectives(**goals),
        Strategy(**choices),
        **settings,
    )
    search.write()
    return search


@dataclass
class Forks:
    """Workers that are forks of this process: torch is imported already."""

    search: Search
    work: Callable[[Search, int], object] = lambda search, index: Worker(search.folder, index)()
    outlive_launcher: bool = False
    pids: dict[int, int] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)

    def start(self, indices: Sequence[int]) -> None:
        for index in indices:
            self.pids[index] = forked(lambda index=index: self.work(self.search, index), self.log(index))

    def alive(self) -> set[int]:
        for index, pid in list(self.pids.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self.pids[index]
                self.codes.append(os.waitstatus_to_exitcode(status))
        return set(self.pids)

    def log(self, index: int) -> Path:
        return self.search.folder / "logs" / f"worker-{index}.log"

    def stop(self) -> None:
        for pid in self.pids.values():
            os.kill(pid, signal.SIGTERM)
        while self.alive():
            time.sleep(0.02)


def forked(work: Callable[[], object], log: Path) -> int:
    """The pid of a fork that does `work` and leaves with the code that it returns."""
    log.parent.mkdir(parents=True, exist_ok=True)
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, trials_of._stop)
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        sys.stdout = sys.stderr = os.fdopen(2, "w", closefd=False)
        code = int(work() or 0)  # type: ignore[call-overload]
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def trials(search: Search, *states: TrialState) -> list[FrozenTrial]:
    try:
        return SearchStudy.open(search).trials(*states)
    except KeyError:
        return []


def begin(trial: FrozenTrial) -> datetime:
    assert trial.datetime_start is not None
    return trial.datetime_start


def end(trial: FrozenTrial) -> datetime:
    assert trial.datetime_complete is not None
    return trial.datetime_complete


def wait_for(condition: Callable[[], Any]) -> Any:
    last = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < last
        time.sleep(0.02)
    return found


def check_whole(search: Search) -> None:
    """Every trial is complete, exactly as many as asked for, and says what its result says."""
    found = trials(search)
    assert [trial.number for trial in found] == list(range(search.n_trials))
    for trial in found:
        assert trial.state == TrialState.COMPLETE, trial.user_attrs
        result = json.loads(Path(trial.user_attrs["result"]).read_text())
        assert trial.values == [result[result["metric"]]]
        assert result["cell"] == trial.user_attrs["cell"]
        for key, value in trial.params.items():
            assert f"{key}={value}" in result["overrides"]
    assert not list(search.folder.glob("**/*.lock"))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def braked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Trainings with `brake.LOSS` are slow while there is this file, and stop where it says."""
    file = tmp_path / "brake"
    monkeypatch.setenv("BRAKE", str(file))
    file.touch()
    return file


# The space


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a=interval(1e-5,1e-2)", FloatDistribution(1e-5, 1e-2)),
        ("a=tag(log,interval(1e-5,1e-2))", FloatDistribution(1e-5, 1e-2, log=True)),
        ("a=tag(int,interval(1,9))", IntDistribution(1, 9)),
        ("a=tag(int,log,interval(1,9))", IntDistribution(1, 9, log=True)),
        ("a=int(interval(4,64))", IntDistribution(4, 64)),
        ("a=int(interval(4.5,64.9))", IntDistribution(4, 64)),
        ("a=tag(log,int(interval(4,64)))", IntDistribution(4, 64, log=True)),
        ("a=int(tag(log,interval(4,64)))", IntDistribution(4, 64, log=True)),
        ("a=tag(int,interval(1.5,4.5))", IntDistribution(2, 4)),
        ("a=float(interval(4,64))", FloatDistribution(4, 64)),
        ("a=int(range(1.5,9.5,step=2.5))", IntDistribution(1, 9, step=2)),
        ("a=float(range(1,9,step=2))", FloatDistribution(1, 9, step=2)),
        ("a=range(10,1,step=-3)", IntDistribution(1, 10, step=3)),
        ("a=range(10,2,step=-3)", IntDistribution(4, 10, step=3)),
        ("a=int(1.5,2.7)", CategoricalDistribution([1, 2])),
        ("a=float(choice(1,2))", CategoricalDistribution([1.0, 2.0])),
        ("a=str(choice(1,true))", CategoricalDistribution(["'1'", "'true'"])),
        ("a=bool(choice(0,1))", CategoricalDistribution([False, True])),
        ("a=range(4,64,step=4)", IntDistribution(4, 64, step=4)),
        ("a=range(0.0,1.0,step=0.25)", FloatDistribution(0, 1, step=0.25)),
        ("a=tag(log,range(1,64))", IntDistribution(1, 64, log=True)),
        ("a=1,2.5,true,null,x", CategoricalDistribution([1, 2.5, True, "null", "x"])),
        ("a=cosine,linear", CategoricalDistribution(["cosine", "linear"])),
        ("a='x y','z'", CategoricalDistribution(["'x y'", "'z'"])),
        ("a=[1,2],[3]", CategoricalDistribution(["[1,2]", "[3]"])),
    ],
)
def test_overrides_become_distributions(override: str, expected: BaseDistribution) -> None:
    distributions, fixed = parsed("b=1", override, "c='x, y'")
    assert fixed == ("b=1", "c='x, y'")
    assert optuna.distributions.json_to_distribution(distributions["a"]) == expected


@pytest.mark.parametrize("value", ["1e-05", "0.1", "true", "null", "cosine", "'x y'", "[1,2]", "{p:1}", "'a=b'", "-3"])
def test_a_category_is_written_as_an_override_that_means_the_same(value: str) -> None:
    parser = OverridesParser.create()
    distributions, _ = parsed(f"a={value},other")
    distribution = optuna.distributions.json_to_distribution(distributions["a"])
    assert isinstance(distribution, CategoricalDistribution)
    search = Search(Path("x"), Path(), distributions)
    (written,) = search.overrides({"a": distribution.choices[0]})
    assert parser.parse_overrides([written])[0].value() == parser.parse_overrides([f"a={value}"])[0].value()


def test_of_the_same_key_the_last_override_counts() -> None:
    distributions, fixed = parsed("a=1,2", "b=interval(0,1)", "a=3")
    assert (list(distributions), fixed) == (["b"], ("a=3",))


@pytest.mark.parametrize(
    ("override", "settings", "said"),
    [
        ("a=1,2", {"n_trials": 0}, "n_trials=0 must be a whole number, 1 or more"),
        ("a=1,2", {"n_workers": True}, "n_workers=True must be a whole number"),
        ("a=1,2", {"directions": ("up",)}, "direction=up is unknown: choose one of minimize, maximize"),
        ("a=1,2", {"objective": ("x", "y")}, "1 directions and hydra.sweeper.objective 2 objectives"),
        ("a=1,2", {"objective": ("x", "x"), "directions": ("minimize",) * 2}, "names one objective twice"),
        ("a=1,2", {"sampler": {"name": "best"}}, "sampler=best is unknown: choose one of tpe, random, gp"),
        ("a=1,2", {"sampler": {"name": "tpe", "population": 3}}, "sampler=tpe: .*population"),
        ("a=1,2", {"pruner": {"name": "hyper"}}, "pruner=hyper is unknown: choose one of none, asha, median"),
        ("a=1,2", {"pruner": {"name": "asha"}}, "choose it by hydra/sweeper/pruner=asha"),
        ("a=1,2", {"pruner": ASHA | {"reduction_factor": 1}}, "reduction_factor=1 must be"),
        ("a=1,2", {"pruner": ASHA, "objective": ("x", "y"), "directions": ("minimize",) * 2}, "one objective, not 2"),
        ("a=interval(0,1)", {"sampler": {"name": "grid"}}, "a is an interval"),
        ("a=1,2", {"storage": "sqlite:///a.db"}, "storage=sqlite:///a.db is a database: give a journal file"),
        ("a=1", {}, "nothing to search"),
        ("a=interval(1,0)", {}, r"a=interval\(1,0\): .*low <= high"),
        ("a=tag(log,interval(0,1))", {}, "low > 0"),
        ("a=tag(fast,interval(0,1))", {}, "tag fast is unknown here: choose one of log, int"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused_in_one_line(
    tmp_path: Path, override: str, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said) as refusal:
        searching(tmp_path, override, **settings)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    search = searching(tmp_path, "a=interval(0,1)", pruner=ASHA, objective=("x",), directions=("maximize",))
    assert Search.read(search.folder) == search
    (search.folder / "search.json").write_text('{"n_trials": 3}')
    with pytest.raises(ValueError, match="no search that this version can read"):
        Search.read(search.folder)


@pytest.mark.parametrize("sampler", ["grid", "random", "qmc"])
def test_samplers_that_look_at_no_results_fill_the_slots_beforehand(tmp_path: Path, sampler: str) -> None:
    overrides = ("a=x,y,z", "b=range(1,2)") if sampler == "grid" else ("a=interval(0,1)", "b=interval(0,1)")
    found = []
    for name, sizes in (("at once", (8,)), ("in two goes", (3, 8))):
        search = searching(tmp_path / name, *overrides, sampler={"name": sampler})
        for size in sizes:
            search = replace(search, n_trials=size)
            SearchStudy.open(search, create=True).fill()
        found.append([trial.system_attrs["fixed_params"] for trial in trials(search)])
    assert found[0] == found[1]
    if sampler == "grid":
        assert found[0] == [{"a": a, "b": b} for a, b in itertools.product("xyz", (1, 2))]
    else:
        assert len({point["a"] for point in found[0]}) == 8


@pytest.mark.parametrize("path", sorted((ROOT / "conf/hydra/sweeper").glob("*/*.yaml")), ids=lambda path: path.stem)
def test_an_option_has_its_header_and_the_defaults_of_optuna(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# ")
    options: Any = OmegaConf.to_container(OmegaConf.create(text))
    assert options["name"] == path.stem
    searching(tmp_path, "a=1,2", **{path.parent.name: options})
    if path.parent.name == "sampler":
        parameters = inspect.signature(getattr(optuna.samplers, SAMPLERS[options.pop("name")])).parameters
        assert options == {key: parameters[key].default for key in options}


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsgaii", "random", "cmaes"])
def test_every_sampler_finds_the_middle_of_a_bowl_and_repeats_itself(tmp_path: Path, sampler: str) -> None:
    found = []
    for name in ("once", "again"):
        search = searching(tmp_path / name, "a=interval(-1,1)", "b=x,y", sampler={"name": sampler}, n_trials=25)
        SearchStudy.open(search, create=True).fill()
        study = SearchStudy.open(search, "0")
        while (trial := study.take()) is not None:
            study.study.tell(trial, (trial.params["a"] - 0.3) ** 2 + (trial.params["b"] == "x"))
        assert len(trials(search, TrialState.COMPLETE)) == 25
        assert study.study.best_value < 0.05
        found.append([trial.params for trial in trials(search)])
    assert found[0] == found[1]


@pytest.mark.parametrize("storage", ["", "another.log"])
def test_a_slot_is_taken_by_one_worker_only(tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    search = searching(tmp_path, "a=interval(0,1)", n_trials=12, storage=storage)
    SearchStudy.open(search, create=True).fill()
    taken: list[int] = []

    def take(index: int) -> None:
        study = SearchStudy.open(search, str(index))
        while (one := study.take()) is not None:
            taken.append(one.number)

    threads = [threading.Thread(target=take, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(12))
    found = trials(search, TrialState.RUNNING)
    assert len(found) == 12
    # Each worker has random numbers of its own.
    assert len({trial.params["a"] for trial in found}) == 12
    # What is put back is taken again as it was.
    study = SearchStudy.open(search, "again")
    assert study.put_back(found[3], killed=True)
    again = study.take()
    assert again is not None
    assert (again.number, again.params) == (3, found[3].params)
    assert study.take() is None
    # A new launch is a new chance for what was killed in earlier ones; in one launch the third time is the last.
    assert study.put_back(trials(search)[3], killed=True)
    study.fill()
    assert [study.put_back(trials(search)[3], killed=True) for _ in range(3)] == [True, True, False]
    assert trials(search)[3].state == TrialState.FAIL


def test_a_trial_is_lost_when_its_process_is(tmp_path: Path) -> None:
    search = searching(tmp_path, "a=interval(0,1)", n_trials=2)
    SearchStudy.open(search, create=True).fill()

    def work() -> None:
        study = SearchStudy.open(search, "0")
        lease = Lease(search.folder / "workers" / "0")
        with lease.acquire():
            holder = lease.holder()
            assert holder is not None
            for attributes in ({}, {"process": holder.asdict(), "worker": 0}):
                taken = study.take()
                assert taken is not None
                for key, value in attributes.items():
                    taken.set_user_attr(key, value)
            (tmp_path / "ready").touch()
            signal.pause()

    pid = forked(work, tmp_path / "log")
    try:
        wait_for((tmp_path / "ready").exists)
        silent, known = trials(search, TrialState.RUNNING)
        assert set(WorkerLeases(search.folder).holders()) == {0}
        assert WorkerLeases(search.folder).dead_elsewhere() == set()
        assert [WorkerLeases(search.folder).lost(one, set()) for one in (silent, known)] == [False, False]
        # Its cluster may know better than its lease.
        assert [WorkerLeases(search.folder).lost(one, {0}) for one in (silent, known)] == [True, True]
    finally:
        os.kill(pid, signal.SIGKILL)
        ended(pid)
    assert WorkerLeases(search.folder).holders() == {}
    assert [WorkerLeases(search.folder).lost(one, set()) for one in (silent, known)] == [True, True]


def test_a_worker_elsewhere_is_dead_when_its_cluster_has_forgotten_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = searching(tmp_path, "a=interval(0,1)")
    for index in (0, 1):
        elsewhere = replace(Process.current(), host="elsewhere", slurm_job=f"81{index}")
        write_json(search.folder / "workers" / str(index) / "lease-000001.json", {**elsewhere.asdict(), "token": "x"})
    assert set(WorkerLeases(search.folder).holders()) == {0, 1}
    monkeypatch.setattr(slurm, "available", lambda: True)
    monkeypatch.setattr(slurm, "queue", lambda ids: {"811": None})
    assert WorkerLeases(search.folder).dead_elsewhere() == {0}


def test_workers_share_what_the_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    search = searching(tmp_path, "a=1,2", n_workers=3)
    local = LocalWorkers(search, tmp_path, MachineResources(8, ("0", "2")))
    assert [local._share(index) for index in range(3)] == [
        {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": gpu} for gpu in ("0", "2", "0")
    ]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert LocalWorkers(search, tmp_path, MachineResources(8))._share(0) == {}


def test_half_a_line_of_the_journal_is_dropped(tmp_path: Path) -> None:
    search = searching(tmp_path, "a=interval(0,1)", n_trials=3)
    SearchStudy.open(search, create=True).fill()
    whole = search.journal.read_bytes()
    first, rest = whole.split(b"\n", 1)
    # At the end, and with what another process wrote behind it.
    for broken in (whole + b'{"op_code": 5, "wor', first + b'\n{"op_code"' + rest[:40] + b"\n" + rest):
        search.journal.write_bytes(broken)
        mend_journal(search.journal)
        assert search.journal.read_bytes() == whole
    assert len(trials(search)) == 3


# Trainings that are watched


def config(folder: Path, *overrides: str) -> tuple[Any, Run]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", [*TINY, f"paths.runs={folder}", *overrides], return_hydra_config=True)
    choices = dict(cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, Run.of(cfg, choices)


@slow
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_watching_changes_no_bit_and_a_pruned_training_goes_on_to_the_same_bits(tmp_path: Path, schedule: str) -> None:
    overrides = ("training.steps=40", f"schedule={schedule}", "ema.decay=0.9", "training.clip=0.5")
    weights, scores = [], []
    for name in ("alone", "watched", "pruned"):
        cfg, run = config(tmp_path / name, *overrides)
        seen: dict[int, float] = {}

        def report(step: int, metric: str, value: float, name: str = name, seen: dict[int, float] = seen) -> bool:
            seen[step] = value
            assert metric == "w2_points"
            return name == "pruned" and step == 9

        watch = PruningPolicy((3, 9, 27), 50, report)
        if name == "pruned":
            with pytest.raises(TrainingPruned):
                stages.complete(cfg, run, [], None, watch)
            assert list(seen) == [3, 9]
            status = run.fit.status()
            assert status is not None
            assert (status["state"], status["step"], status["reason"]) == ("waiting", 9, "pruned")
            assert not run.fit.done
            assert not run.fit.error_file.exists()
            stages.complete(cfg, run, [])
        else:
            stages.complete(cfg, run, [], None, watch if name == "watched" else None)
        weights.append((run.fit.checkpoints / "ema.safetensors").read_bytes())
        if seen:
            scores.append(seen)
    assert weights[0] == weights[1] == weights[2]
    # The weights that are scored are those of the step: a training that only goes so far ends with the same score.
    watched, pruned = scores
    assert list(watched) == [3, 9, 27]
    assert pruned == {step: watched[step] for step in (3, 9)}
    assert len(set(watched.values())) == 3


@slow
def test_a_rung_scores_the_averaged_weights_as_an_evaluation_does(tmp_path: Path) -> None:
    """A rung at the last step, with as many samples: its score is the result's."""
    scores: dict[int, float] = {}
    cfg, run = config(tmp_path, "training.steps=20", "ema.decay=0.9")
    result = stages.complete(
        cfg, run, [], None, PruningPolicy((20,), 64, lambda step, _, value: bool(scores.update({step: value})))
    )
    assert result is not None
    assert scores[20] == pytest.approx(result.value("w2_points"), rel=1e-5)


# Searches


@slow
def test_workers_never_wait_for_a_batch(tmp_path: Path, braked: Path) -> None:
    """While one trains a long trial, the other goes through short ones; and equal trainings happen once."""
    steps = ("training.steps=500,20,21,22,23", brake.LOSS)
    search = searching(tmp_path, *steps, "sampler.nfe=8", sampler={"name": "grid"}, n_trials=5, n_workers=2)

    def release() -> None:
        wait_for(lambda: len(trials(search, TrialState.COMPLETE)) == 4)
        braked.unlink()

    waiting = threading.Thread(target=release)
    waiting.start()
    assert supervisor.run(search, Forks(search)) == 0
    waiting.join()
    check_whole(search)
    found = {trial.params["training.steps"]: trial for trial in trials(search)}
    long = found.pop(500)
    assert {trial.user_attrs["worker"] for trial in found.values()} == {1 - long.user_attrs["worker"]}
    assert all(end(trial) < end(long) for trial in found.values())


@slow
def test_two_of_four_workers_are_killed_and_every_trial_happens_once(tmp_path: Path, braked: Path) -> None:
    overrides = ("training.steps=range(60,90)", "trainer.checkpoint_seconds=0.05", brake.LOSS)
    # Nobody comes to the end of a trial before two are killed.
    braked.write_text("loss 30")
    search = searching(tmp_path, *overrides, n_trials=7, n_workers=4)
    crew = Forks(search)
    killed: list[int] = []

    def kill() -> None:
        while len(killed) < 2:
            for trial in wait_for(lambda: trials(search, TrialState.RUNNING)):
                process = trial.user_attrs.get("process")
                fits = Path(trial.user_attrs.get("result", ".")).parents[2:3]
                # After its first checkpoint it stops.
                begun = any((fit / "checkpoints/last.ckpt").exists() for fit in fits)
                if process and process["pid"] not in killed and begun:
                    os.kill(process["pid"], signal.SIGKILL)
                    killed.append(process["pid"])
                    break
        braked.unlink()

    murderer = threading.Thread(target=kill)
    murderer.start()
    assert supervisor.run(search, crew) == 0
    murderer.join()
    assert crew.codes.count(-signal.SIGKILL) == 2
    check_whole(search)
    assert sum(trial.user_attrs.get("attempts", 0) for trial in trials(search)) == 2


@slow
def test_the_launcher_is_killed_and_the_same_search_goes_on(tmp_path: Path, braked: Path) -> None:
    """Its workers go on without it; whoever looks after the search next counts them as its own."""
    # A worker stops in its second trial, or at the beginning of its third.
    braked.write_text("loss 201")
    search = searching(tmp_path, "training.steps=range(100,200)", brake.LOSS, n_trials=6, n_workers=2)
    launcher = forked(lambda: supervisor.run(search, Forks(search)), tmp_path / "launcher.log")
    wait_for(lambda: trials(search, TrialState.COMPLETE))
    with pytest.raises(ValueError, match=f"is being looked after by process {launcher}"):
        supervisor.run(search, Forks(search))
    os.kill(launcher, signal.SIGKILL)
    assert ended(launcher) == -signal.SIGKILL
    workers = WorkerLeases(search.folder).holders()
    assert set(workers) == {0, 1}
    os.kill(workers[0].pid, signal.SIGKILL)
    braked.unlink()
    crew = Forks(search)
    assert supervisor.run(search, crew) == 0
    check_whole(search)
    # One took the place of the dead, none that of the living.
    assert len(crew.codes) <= 2
    assert supervisor.run(replace(search, n_trials=7), Forks(search)) == 0
    check_whole(replace(search, n_trials=7))


@slow
def test_a_launcher_that_is_stopped_stops_its_workers_and_loses_nothing(tmp_path: Path, braked: Path) -> None:
    search = searching(tmp_path, "training.steps=range(200,300)", brake.LOSS, n_trials=2, n_workers=2)
    launcher = forked(lambda: supervisor.run(search, Forks(search)), tmp_path / "launcher.log")
    # A status comes before the first step; the first numbers come after it.
    wait_for(lambda: sum(path.stat().st_size > 0 for path in search.runs.glob("fits/*/metrics.jsonl")) == 2)
    os.kill(launcher, signal.SIGTERM)
    assert ended(launcher) == 128 + signal.SIGTERM
    assert "diffsweep resume study" in (tmp_path / "launcher.log").read_text()
    assert WorkerLeases(search.folder).holders() == {}
    before = trials(search)
    assert [trial.state for trial in before] == [TrialState.WAITING] * 2
    assert len(list(search.runs.glob("fits/*/checkpoints/last.ckpt"))) == 2
    braked.unlink()
    assert supervisor.run(search, Forks(search)) == 0
    check_whole(search)
    assert [trial.params for trial in trials(search)] == [trial.params for trial in before]
    assert "going on from its checkpoint" in (search.folder / "logs/worker-0.log").read_text()


@slow
def test_a_failing_trial_stops_nobody_and_says_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    decays = "training.decay=cosine,nonsense,linear"
    search = searching(tmp_path, decays, sampler={"name": "grid"}, n_workers=1)
    assert supervisor.run(search, Forks(search)) == 1
    states = [trial.state for trial in trials(search)]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert "training.decay=nonsense is unknown" in trials(search)[1].user_attrs["reason"]
    printed = capfd.readouterr()
    assert "trial 1 failed: training.decay=nonsense is unknown" in printed.err
    assert "2 complete, 1 fail" in printed.out
    assert len(Plan.read(search.folder).cells) == 2


@slow
def test_the_last_worker_of_a_detached_search_writes_its_table(tmp_path: Path) -> None:
    search = searching(tmp_path, "training.warmup=5,6,7", n_trials=3, n_workers=2, sampler={"name": "grid"})
    workers = Forks(search)
    # A launcher that detaches leaves at once; where it is killed, it is the same.
    assert supervisor.run(search, workers, detach=True) == 0
    wait_for(lambda: not workers.alive())
    check_whole(search)
    assert workers.codes == [0, 0]
    rows = (search.folder / "table.csv").read_text().splitlines()
    assert len(rows) == 4
    assert (search.folder / "report.html").is_file()
    assert (search.folder / "optimization_results.yaml").is_file()
    said = "".join(workers.log(index).read_text() for index in range(2))
    assert said.count("study study: 3 complete") == 1
    assert "3 runs of 3 trainings" in said
    launched = LaunchRecord.read(search.folder)
    assert launched is None or launched.ended


@slow
def test_a_trial_that_kills_every_process_is_given_up(tmp_path: Path) -> None:
    def work(search: Search, index: int) -> None:
        study = SearchStudy.open(search, str(index))
        if any(trial.number == 0 and trial.state == TrialState.WAITING for trial in study.trials()):
            assert study.take()
            os.kill(os.getpid(), signal.SIGKILL)
        Worker(search.folder, index)()

    search = searching(tmp_path, "training.steps=20,21", sampler={"name": "grid"})
    assert supervisor.run(search, Forks(search, work)) == 1
    first, second = trials(search)
    assert (first.state, first.user_attrs["reason"]) == (TrialState.FAIL, "its process was killed 3 times")
    assert second.state == TrialState.COMPLETE


@slow
def test_an_objective_that_no_result_has_ends_the_search(tmp_path: Path) -> None:
    search = searching(tmp_path, "training.steps=20,21,22", sampler={"name": "grid"}, objective=("beauty",))
    with pytest.raises(ValueError, match=r"objective=beauty is no number of a result: choose from .*w2_points.*nfe"):
        supervisor.run(search, Forks(search))
    assert Counter(trial.state for trial in trials(search)) == {TrialState.FAIL: 1, TrialState.WAITING: 2}


@slow
def test_several_objectives_give_a_front_that_nothing_dominates(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {"objective": ("w2_points", "nfe"), "directions": ("minimize", "minimize"), "n_trials": 6}
    search = searching(tmp_path, "sampler.nfe=2,4,8,16", "sampler=ddim,heun", **settings)
    assert supervisor.run(search, Forks(search)) == 0
    # One training is enough for all samplers.
    assert len(list(search.runs.glob("fits/*/done.json"))) == 1
    found = trials(search)

    def dominated(one: FrozenTrial) -> bool:
        return any(
            other.values != one.values and all(a <= b for a, b in zip(other.values, one.values, strict=True))
            for other in found
        )

    front = {trial.number for trial in found if not dominated(trial)}
    printed = capfd.readouterr().out
    assert {
        int(line.split()[0][1:]) for line in printed.splitlines() if line.strip()[0] == "*" and "front" not in line
    } == front
    written = OmegaConf.to_container(OmegaConf.load(search.folder / "optimization_results.yaml"))
    assert isinstance(written, dict)
    assert {tuple(one["values"]) for one in written["solutions"]} == {tuple(found[number].values) for number in front}
    plan = Plan.read(search.folder)
    assert set(plan.cells) == {trial.user_attrs["cell"] for trial in found}
    assert all(plan.cell(cell).done for cell in plan.cells)


@slow
def test_a_pruner_stops_bad_trials_and_their_trainings_can_go_on(tmp_path: Path) -> None:
    rates = "optimizer.lr=0.001,0.5,0.6,0.7"
    search = searching(tmp_path, rates, "training.steps=40", sampler={"name": "grid"}, pruner=ASHA)
    assert supervisor.run(search, Forks(search)) == 0
    good, *bad = trials(search)
    assert good.state == TrialState.COMPLETE
    assert list(good.intermediate_values) == [5, 10, 20]
    pruned = [trial for trial in bad if trial.state == TrialState.PRUNED]
    assert pruned
    for trial in pruned:
        assert trial.value == trial.intermediate_values[max(trial.intermediate_values)]
        fit = Path(trial.user_attrs["result"]).parents[2]
        assert (fit / "checkpoints/last.ckpt").exists()
        assert not (fit / "done.json").exists()
    # What was pruned is no result, so the table of the sweep has no gap.
    assert len(Plan.read(search.folder).cells) == 4 - len(pruned)


@slow
def test_as_a_user_starts_it(tmp_path: Path) -> None:
    """The command, its files and its table; and the same command again does nothing."""
    command = [str(ROOT / "train.py"), "-m", "hydra/sweeper=optuna", *TINY, "paths.runs=runs"]
    command += ["optimizer.lr=tag(log,interval(1e-4,1e-2))", "schedule=cosine,linear", "hydra.sweeper.n_trials=3"]
    command += ["hydra.sweeper.n_workers=2", "hydra.sweeper.study_name=rates", "hydra.sweeper.seed=1"]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return forked_runs.run([*command, *more], tmp_path, environment, PATIENCE)

    done = run()
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/sweeps/rates"
    search = replace(Search.read(folder), folder=folder)
    found = [trial for trial in trials(search) if trial.state == TrialState.COMPLETE]
    assert len(found) == 3
    best = min(found, key=lambda trial: trial.values)
    written: Any = OmegaConf.to_container(OmegaConf.load(folder / "optimization_results.yaml"))
    assert written == {
        "name": "optuna",
        "best_evaluated_params": best.params,
        "best_evaluated_result": pytest.approx(best.value),
    }
    # The command that is suggested is the best cell: asked for again, it is there already.
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("best  ")]
    suggested = line.split("diffsweep train ")[1].split()
    _, asked = config(tmp_path / "runs", *suggested)
    assert asked.cell.signature == best.user_attrs["cell"]
    results = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/fits/*/cells/*/result.json")}
    again = run()
    assert again.returncode == 0, again.stderr
    assert "3 of 3 trials are done already" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/fits/*/cells/*/result.json")} == results
    resumed = forked_runs.run(["-m", "diffsweep", "resume", "rates"], tmp_path, os.environ, PATIENCE)
    assert (resumed.returncode, resumed.stderr) == (0, again.stderr)
    other = run("optimizer.weight_decay=interval(0,1)")
    assert other.returncode == 2
    assert (
        "rates is the name of another search: optimizer.weight_decay was not searched, now interval(0.0,1.0): choose"
        in other.stderr
    )
    assert "Traceback" not in other.stderr


@slow
def test_workers_are_jobs_of_a_cluster_and_one_that_is_cancelled_is_replaced(
    cluster: Cluster, tmp_path: Path, braked: Path
) -> None:
    command = [str(ROOT / "train.py"), "-m", "hydra/sweeper=optuna", "hydra/launcher=slurm", *TINY]
    command += [f"paths.runs={tmp_path}/runs", "training.steps=range(150,300)", "trainer.checkpoint_seconds=0.2"]
    command += [brake.LOSS]
    command += ["hydra.launcher.poll_seconds=1", "resources.fit.memory=900MB", "hydra.sweeper.study_name=study"]
    command += ["hydra.sweeper.n_trials=4", "hydra.sweeper.n_workers=2", "hydra.sweeper.seed=1"]
    environment = {**cluster.env, "OMP_NUM_THREADS": "1", **brake.environment(braked)}
    launcher = forked_runs.Run(command, tmp_path, environment)
    wait_for(lambda: list(tmp_path.glob("runs/fits/*/checkpoints/last.ckpt")) or launcher.poll())
    assert launcher.poll() is None, launcher.communicate()
    search = Search.read(tmp_path / "runs/sweeps/study")
    (first, *_) = [trial for trial in trials(search, TrialState.RUNNING) if trial.user_attrs.get("process")]
    cluster.run("scancel", first.user_attrs["process"]["slurm_job"])
    braked.unlink()
    out, err = launcher.communicate(timeout=PATIENCE)
    assert launcher.returncode == 0, err
    check_whole(search)
    jobs = {trial.user_attrs["process"]["slurm_job"] for trial in trials(search)}
    assert jobs
    assert None not in jobs
    assert "4 complete" in out
    assert cluster.squeue() == ""
    launched = LaunchRecord.read(search.folder)
    assert launched is not None
    assert launched.ended


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["a=interval(0,2)", "b=x,y", "c=1"], "a was interval(0.0,1.0), now interval(0.0,2.0)"),
        (["a=int(interval(0,1))", "b=x,y", "c=1"], "a was interval(0.0,1.0), now int(interval(0,1))"),
        (["a=interval(0,1)", "b=x,z", "c=1"], "b was x,y, now x,z"),
        (["a=interval(0,1)", "c=1"], "b was x,y, now not searched"),
        (["a=interval(0,1)", "b=x,y", "c=2"], "c=1 is no longer there; c=2 is new"),
        (["a=interval(0,1)", "b=x,y", "c=1", "d=tag(log,choice(1,2))"], ""),
    ],
)
def test_a_study_whose_space_has_changed_names_what_has(tmp_path: Path, changed: list[str], said: str) -> None:
    before = searching(tmp_path, "a=interval(0,1)", "b=x,y", "c=1")
    if not said:
        with pytest.raises(ValueError, match=r"d=tag\(log,choice\(1,2\)\): tag log is about ranges and intervals"):
            searching(tmp_path, *changed)
        return
    assert before.differences(searching(tmp_path, *changed)) == said


def test_a_finished_study_is_given_more_trials(tmp_path: Path) -> None:
    search = searching(tmp_path, "training.steps=range(10,20)", n_trials=2)
    launcher = {"_target_": "hydra_plugins.diffsweep_local.LocalLauncher"}
    hydra = {**search.composition.hydra, "launcher": launcher}
    search = replace(search, composition=replace(search.composition, hydra=hydra))
    search.write()
    assert supervisor.run(search, Forks(search)) == 0
    for n_trials, says in ((1, "--trials 1: study study has 2 already"), (3, "")):
        command = ["resume", "study", "--runs", str(search.runs), "--trials", str(n_trials)]
        done = forked_runs.run(["-m", "diffsweep", *command], tmp_path, os.environ, PATIENCE)
        assert done.returncode == (2 if says else 0), done.stderr
        assert says in done.stderr
    check_whole(replace(search, n_trials=3))
    assert "diffsweep resume study --trials 6" in done.stdout
