"""Sweeps of this machine as users run them: real processes that fail, are killed, are interrupted, and are resumed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

import brake
import forked_runs
from diffsweep.sweep.execute.local_pool import LocalPool, MachineResources
from diffsweep.sweep.execute.retry import RetryPolicy
from diffsweep.sweep.plan.jobs import RemainingWork
from diffsweep.sweep.plan.plan import Plan, SignedConfig
from processes import PROGRAMS
from tiny import TINY

ROOT = Path(__file__).parent.parent
SHORT = [*TINY, "training.steps=40"]
# Seconds that a step may take on a machine that is busy with other things; on an idle one none takes ten.
PATIENCE = 300
slow = pytest.mark.slow


def environment(**more: str) -> dict[str, str]:
    hidden = ("PYTHONPATH", "HYDRA_FULL_ERROR", "OMP_NUM_THREADS")
    return {key: value for key, value in os.environ.items() if key not in hidden} | {"WANDB_MODE": "offline"} | more


def command(*words: str) -> list[str]:
    """The arguments of Python that start train.py."""
    return [str(ROOT / "train.py"), *words]


def resume(sweep: str = "last") -> list[str]:
    """The arguments of Python that resume a sweep."""
    return ["-m", "diffsweep", "resume", sweep]


def start(cwd: Path, arguments: Sequence[str], **more: str) -> forked_runs.Run:
    return forked_runs.Run(arguments, cwd, environment(**more))


def run(cwd: Path, arguments: Sequence[str], expect: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
    done = forked_runs.run(arguments, cwd, environment(**more), PATIENCE)
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def run_in_new_python(cwd: Path, arguments: Sequence[str], **more: str) -> subprocess.CompletedProcess[str]:
    """As `run`, in a process that has imported nothing."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def train(cwd: Path, *overrides: str, expect: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
    return run(cwd, command(*overrides), expect, **more)


def told(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Lines of standard error but for what the sweep is and what Hydra says to every error."""
    lines = (line for line in done.stderr.splitlines() if line.strip())
    return [line for line in lines if not line.startswith(("sweep ", "Set the environment variable HYDRA_FULL_ERROR"))]


def own(cwd: Path) -> Path:
    cwd.mkdir(parents=True, exist_ok=True)
    for name in ("mine.py", "listener.py"):
        shutil.copy(PROGRAMS / name, cwd)
    return cwd


def noted(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def results(cwd: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in cwd.glob("runs/fits/*/cells/*/result.json")}


def one(cwd: Path, pattern: str) -> Path:
    found = sorted(cwd.glob(pattern))
    assert len(found) == 1, found
    return found[0]


def last_sweep(cwd: Path) -> Path:
    return max(cwd.glob("runs/sweeps/*"))


def everything(cwd: Path) -> dict[str, int]:
    """All files that trainings and evaluations have left, with the time of their last change."""
    return {str(path): path.stat().st_mtime_ns for path in cwd.glob("runs/fits/**/*") if path.is_file()}


def wait_for(true: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


# ---- a sweep in which all goes well


AXES = ("sampler=ddim,heun", "schedule=cosine,linear")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    cwd = own(tmp_path_factory.mktemp("grid"))
    counted, listener = "diffuser.loss._target_=mine.Counted", "+hydra.callbacks.mine._target_=listener.Listener"
    # As if the user stood in the checkout: its modules, for callbacks too.
    words = command("-m", *SHORT, counted, *AXES, listener)
    return cwd, run_in_new_python(cwd, words, PYTHONPATH=str(cwd))


@slow
def test_each_model_is_trained_once_and_every_sampler_is_scored(
    grid: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    cwd, done = grid
    assert "4 cells of 2 trainings" in done.stderr
    assert "4 runs of 2 trainings" in done.stdout
    assert len(noted(cwd / "trainings.jsonl")) == 2
    assert len(list(cwd.glob("runs/fits/*/done.json"))) == 2
    found = results(cwd).values()
    assert {(one["sampler"], one["schedule"]) for one in found} == {
        (sampler, schedule) for sampler in ("ddim", "heun") for schedule in ("cosine", "linear")
    }
    assert {one["sweep"] for one in found} == {last_sweep(cwd).name}
    kinds = Counter(path.name.partition("-")[0] for path in last_sweep(cwd).glob("logs/*.log"))
    assert kinds["fit"] == 2


@slow
@pytest.mark.parametrize(("sampler", "schedule"), [("ddim", "cosine"), ("heun", "linear")])
def test_a_sweep_has_the_bits_of_single_runs(
    grid: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, sampler: str, schedule: str
) -> None:
    own(tmp_path)
    train(tmp_path, *SHORT, "diffuser.loss._target_=mine.Counted", f"sampler={sampler}", f"schedule={schedule}")
    (alone,) = results(tmp_path).values()
    swept = results(grid[0])[alone["cell"]]
    same = ("fit", "w2_points", "w2_points_floor", "nfe", "parameters", "git_commit")
    assert {key: alone[key] for key in same} == {key: swept[key] for key in same}
    weights = f"runs/fits/{alone['fit']}/checkpoints/ema.safetensors"
    assert (tmp_path / weights).read_bytes() == (grid[0] / weights).read_bytes()


@slow
def test_the_same_sweep_again_starts_nothing_and_shows_the_same(
    grid: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    cwd, before = grid
    files = everything(cwd)
    words = command("-m", *SHORT, "diffuser.loss._target_=mine.Counted", *AXES)
    again = run_in_new_python(cwd, ["-X", "importtime", *words])
    imported = {row.rpartition("|")[2].strip() for row in again.stderr.splitlines() if row.startswith("import time:")}
    assert "hydra" in imported
    assert not imported & {"torch", "lightning", "wandb"}
    assert "4 done already, 0 to do" in again.stderr
    table = [text.partition("\nreport ")[0] for text in (before.stdout, again.stdout)]
    assert table[1] == table[0][table[0].index("4 runs of") :]
    assert everything(cwd) == files
    assert not list(last_sweep(cwd).glob("source-*"))
    assert (last_sweep(cwd) / "table.csv").read_text().count("\n") == 5


@slow
def test_callbacks_hear_of_the_sweep_in_the_launcher_and_of_each_cell_in_its_job(
    grid: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    cwd, _ = grid
    heard = noted(cwd / "heard.jsonl")
    counts = Counter(one["event"] for one in heard)
    assert counts == {"multirun_start": 1, "multirun_end": 1, "job_start": 4, "job_end": 4}
    assert (heard[0]["event"], heard[-1]["event"]) == ("multirun_start", "multirun_end")
    assert heard[0]["pid"] == heard[-1]["pid"]
    assert heard[0]["pid"] not in {one["pid"] for one in heard[1:-1]}
    plan = Plan.read(last_sweep(cwd))
    scored = results(cwd)
    for task in plan.tasks:
        (begin,) = [one for one in heard if one["event"] == "job_start" and one["num"] == task.num]
        (end,) = [one for one in heard if one["event"] == "job_end" and one["num"] == task.num]
        assert begin["task"] == list(task.overrides)
        sampler, schedule = (
            next(w for w in task.overrides if w.startswith(f"{key}=")) for key in ("sampler", "schedule")
        )
        assert f"sampler={begin['choices']['sampler']}" == sampler
        assert f"schedule={begin['choices']['schedule']}" == schedule
        assert begin["steps"] == 40
        assert begin["solver"].rpartition(".")[2].lower() == {"ddim": "euler"}.get(sampler[8:], sampler[8:])
        assert (end["status"], end["value"]) == ("COMPLETED", scored[task.cell]["w2_points"])


@slow
def test_hydras_own_launcher_goes_on_with_what_ours_has_begun(
    grid: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    cwd, _ = grid
    before = len(noted(cwd / "trainings.jsonl"))
    counted = "diffuser.loss._target_=mine.Counted"
    done = train(cwd, "-m", *SHORT, counted, "sampler=ddim,euler_ancestral", "hydra/launcher=basic")
    assert "2 runs of 1 training" in done.stdout
    assert len(results(cwd)) == 5
    assert len(noted(cwd / "trainings.jsonl")) == before


@slow
def test_modes_of_a_single_run(grid: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    cwd, _ = grid
    counted = "diffuser.loss._target_=mine.Counted"
    files = everything(cwd)
    for mode in ("read_only", "plan"):
        done = train(cwd, *SHORT, counted, "sampler=dpmpp_2m", f"mode={mode}", expect=2)
        assert re.search(r"is trained, cell \w+ is to be evaluated", done.stderr)
        assert "already done" in train(cwd, *SHORT, counted, "sampler=ddim", f"mode={mode}").stderr
    done = train(cwd, *SHORT, counted, "sampler=dpmpp_2m", "mode=again", expect=2)
    assert "mode=again is unknown: choose one of retry, cached, force" in done.stderr
    assert "Traceback" not in done.stderr
    assert everything(cwd) == files


# ---- a sweep in which things go wrong


def faults(cwd: Path, *words: str, expect: int = 1) -> subprocess.CompletedProcess[str]:
    return train(
        cwd,
        "-m",
        *SHORT,
        "sampler=ddim",
        "sampler.solver._target_=mine.Good,mine.Raise,mine.Kill",
        "optimizer.lr=1e-3,1e30",
        "training.clip=null",
        "trainer.threads=null",
        "hydra.sweeper._target_=hydra_plugins.recording_sweeper.RecordingSweeper",
        *words,
        expect=expect,
        PYTHONPATH=str(cwd / "plugins"),
    )


@slow
def test_what_fails_costs_only_itself_says_why_and_is_all_that_is_done_again(tmp_path: Path) -> None:
    """A cell that raises, one whose process is killed, and a fit that diverges; then every mode; then the repair."""
    own(tmp_path)
    plugins = tmp_path / "plugins" / "hydra_plugins"
    plugins.mkdir(parents=True)
    shutil.copy(PROGRAMS / "recording_sweeper.py", plugins)
    done = faults(tmp_path, "hydra.launcher.retries=2")
    (result,) = results(tmp_path).values()
    assert "mine.Good" in result["overrides"]
    assert len({one["pid"] for one in noted(tmp_path / "kills.jsonl")}) == 3
    assert "Traceback" not in done.stdout + done.stderr
    said = done.stdout
    failed = said[re.search("^.*2 failed.*:$", said, re.MULTILINE).start() :]  # type: ignore[union-attr]
    assert "3 not run" in failed
    assert "RuntimeError: no aim today" in failed
    assert "killed by SIGKILL (out of memory, or kill -9)" in failed
    fit = next(path.parent.name for path in tmp_path.glob("runs/fits/*/error.txt"))
    assert re.search(rf"not run: fit {fit} failed: ValueError: the loss is (?:nan|inf)", failed)
    assert failed.count("optimizer.lr=1e+30") == 3
    shown = [Path(line.split()[1]) for line in failed.splitlines() if line.strip().startswith("see ")]
    assert len(shown) >= 2
    assert all((tmp_path / path).exists() for path in shown), shown
    assert f"diffsweep resume {last_sweep(tmp_path).name}" in failed
    # What a sweeper is given: a value, or why there is none.
    returned = noted(tmp_path / "returned.jsonl")
    assert len(returned) == 6
    for back in returned:
        text = " ".join(back["overrides"])
        if "1e+30" in text:
            assert re.match(rf"NoResultError: not run: fit {fit} failed: ValueError: the loss", back["value"])
        elif "Good" in text:
            assert (back["status"], back["value"]) == ("COMPLETED", result["w2_points"])
        else:
            assert re.match(
                "NoResultError: (RuntimeError: no aim today|JobProcessError: killed by SIGKILL)", back["value"]
            )
        assert (back["status"] == "COMPLETED") == ("Good" in text and "1e+30" not in text)

    # Two trainings share the cores, and so do many evaluations.
    cores = len(os.sched_getaffinity(0))
    shares = {max(1, cores // min(cores, jobs)) for jobs in (2, 6)}
    threads = noted(tmp_path / "imports.jsonl")
    # The check before has one thread.
    assert {one["torch"] for one in threads} == shares | {1}
    assert {one["omp"] for one in threads} == {str(share) for share in shares | {1}}

    # Nothing is started by modes that start nothing.
    sweep = last_sweep(tmp_path).name
    files = everything(tmp_path)
    cached = faults(tmp_path, "mode=cached")
    assert "5 cells failed before and stay so" in cached.stderr
    faults(tmp_path, "mode=read_only")
    plan = faults(tmp_path, "mode=plan", expect=0)
    assert len(re.findall(rf"train {fit} .* for 3 cells, about ", plan.stdout)) == 1
    folders = set(tmp_path.glob("runs/sweeps/*"))
    wrong = train(tmp_path, *SHORT, "-m", *AXES, "mode=again", expect=2)
    assert len(told(wrong)) == 1, wrong.stderr
    assert "mode=again is unknown: choose one of retry, cached" in wrong.stderr
    assert set(tmp_path.glob("runs/sweeps/*")) == folders
    assert everything(tmp_path) == files
    assert len(noted(tmp_path / "kills.jsonl")) == 3

    # Repaired: only what is missing is done, and the fit that diverges still costs only its own cells.
    (tmp_path / "mine.py").write_text((PROGRAMS / "mine.py").read_text().replace("len(x) == 64", "False"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/fits/*/cells/*/result.json")}
    weights = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/fits/*/checkpoints/ema.safetensors")}
    again = run(tmp_path, resume(sweep), expect=1)
    assert "3 not run:" in again.stdout
    assert {one["overrides"].split("mine.")[1].split()[0] for one in results(tmp_path).values()} == {
        "Good",
        "Raise",
        "Kill",
    }
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in (before | weights).items())
    assert not list(tmp_path.glob(f"runs/fits/{result['fit']}/cells/*/error.txt"))

    # All anew, the training too.
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/fits/*/cells/*/result.json")}
    good = ["sampler=ddim", "sampler.solver._target_=mine.Good", "optimizer.lr=1e-3", "training.clip=null"]
    train(tmp_path, "-m", *SHORT, *good, "mode=force")
    assert [path.parent.name for path, stamp in written.items() if path.stat().st_mtime_ns != stamp] == [result["cell"]]
    assert all(path.stat().st_mtime_ns != stamp for path, stamp in weights.items())


@slow
def test_data_are_fetched_before_without_any_training(tmp_path: Path) -> None:
    done = train(tmp_path, "-m", *SHORT, *AXES, "mode=prefetch")
    assert done.stdout.count("training and") == 1
    assert list(tmp_path.glob("runs/cache/*"))
    assert not list(tmp_path.glob("runs/fits"))
    assert not list(tmp_path.glob("runs/sweeps"))


# ---- interruptions


LONG = [*TINY, "training.steps=700", "trainer.checkpoint_seconds=10000", "sampler=ddim,heun", brake.LOSS]


def steps(cwd: Path) -> int:
    """Steps that the one training of a folder has told of."""
    return sum(path.read_text().count("\n") for path in cwd.glob("runs/fits/*/metrics.jsonl")) * 10


def gone(processes: Sequence[psutil.Process]) -> bool:
    def lives(process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return not any(map(lives, processes))


@slow
def test_whoever_is_stopped_or_killed_the_resumed_sweep_ends_with_the_bits_of_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    rough, calm = tmp_path / "rough", tmp_path / "calm"
    rough.mkdir()
    calm.mkdir()
    at = 0
    pace = brake.environment(rough / "brake")
    (rough / "brake").touch()

    def begin(words: list[str]) -> tuple[forked_runs.Run, psutil.Process, list[psutil.Process]]:
        process = start(rough, words, **pace)
        # Some way further than the last one had come.
        wait_for(lambda: steps(rough) > at + 20 or process.poll() is not None, "a training")
        assert process.poll() is None, process.communicate()
        (server,) = psutil.Process(process.pid).children()
        return process, server, [server, *server.children(recursive=True)]

    def end(process: forked_runs.Run, family: list[psutil.Process], code: int) -> str:
        nonlocal at
        said = "".join(process.communicate(timeout=PATIENCE))
        assert process.returncode == code, said
        wait_for(lambda: gone(family), "the end of all processes")
        assert len(family) == 2
        status = json.loads(one(rough, "runs/fits/*/status.json").read_text())
        assert (status["state"], status["reason"]) == ("waiting", "interrupted")
        assert status["step"] > at
        # No checkpoint was due by the clock.
        assert one(rough, "runs/fits/*/checkpoints/last.ckpt").exists()
        at = status["step"]
        assert not list(rough.glob("runs/fits/**/error.txt"))
        return said

    # Ctrl-C: the terminal signals all processes of its foreground group.
    process, _, family = begin(command("-m", *LONG))
    os.killpg(process.pid, signal.SIGINT)
    said = end(process, family, 130)
    assert "Traceback" not in said
    assert f"diffsweep resume {last_sweep(rough).name}" in said

    process, _, family = begin(resume())
    process.terminate()
    said = end(process, family, 143)
    assert "Traceback" not in said
    assert f"diffsweep resume {last_sweep(rough).name}" in said

    process, _, family = begin(resume())
    process.kill()
    end(process, family, -signal.SIGKILL)

    process, server, family = begin(resume())
    server.kill()
    said = end(process, family, 1)
    assert "Traceback" not in said
    assert said.count("the process that starts the jobs is gone: killed by SIGKILL") == 1
    assert f"diffsweep resume {last_sweep(rough).name}" in said

    (rough / "brake").unlink()
    done = run(rough, resume(), expect=0, **pace)
    assert "2 runs of 1 training" in done.stdout
    logs = [path.read_text() for path in last_sweep(rough).glob("logs/fit-*.log")]
    assert sum(log.count("going on from its checkpoint") for log in logs) == 4

    train(calm, "-m", *LONG, expect=0, **pace)
    weights = "runs/fits/*/checkpoints/ema.safetensors"
    assert one(rough, weights).read_bytes() == one(calm, weights).read_bytes()
    rows = [
        [json.loads(row) | {"images_per_second": 0} for row in one(cwd, "runs/fits/*/metrics.jsonl").open()]
        for cwd in (rough, calm)
    ]
    assert rows[0] == rows[1]
    scores = [{cell: result["w2_points"] for cell, result in results(cwd).items()} for cwd in (rough, calm)]
    assert scores[0] == scores[1]
    assert len(scores[0]) == 2


# ---- what jobs run from, and with


@slow
def test_what_is_edited_while_jobs_wait_changes_nothing(tmp_path: Path) -> None:
    """The package and the user's own module are edited while the first of two trainings runs."""
    root = tmp_path / "checkout"
    for name in ("src", "conf", "sweeps"):
        shutil.copytree(ROOT / name, root / name, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info"))
    shutil.copy(ROOT / "train.py", root)
    own(root)

    def commit() -> str:
        settings = ["-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(["git", "-C", str(root), "add", "-A", "src", "conf", "sweeps"], check=True)
        subprocess.run(["git", "-C", str(root), *settings, "commit", "-qm", "x"], check=True)
        return subprocess.check_output(["git", "-C", str(root), "rev-parse", "HEAD"], text=True).strip()

    subprocess.run(["git", "init", "-q", str(root)], check=True)
    before = commit()
    words = ["-m", *TINY, "training.steps=300", "sampler=ddim", "sampler.solver._target_=mine.Good", brake.LOSS]
    words += ["schedule=cosine,linear", "hydra.launcher.jobs=1"]
    pace = brake.environment(tmp_path / "brake")
    (tmp_path / "brake").touch()
    path = os.pathsep.join([str(root / "src"), pace["PYTHONPATH"]])
    process = subprocess.Popen(
        [sys.executable, str(root / "train.py"), *words],
        cwd=root,
        env=environment(**pace | {"PYTHONPATH": path}),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_for(lambda: steps(root) or process.poll() is not None, "a training")
    assert process.poll() is None, process.communicate()
    assert len(list(root.glob("runs/fits/*"))) == 1
    (root / "mine.py").write_text("raise SystemExit('the edited module')\n")
    package = root / "src" / "diffsweep"
    for name in ("runs/stages.py", "scoring/sampling.py", "evaluation/pictures.py", "diffusion/solvers/__init__.py"):
        assert (package / name).exists()
        (package / name).write_text("raise SystemExit('the edited package')\n")
    (root / "conf" / "sampler" / "ddim.yaml").write_text("nfe: 1\n")
    (root / "conf" / "schedule" / "linear.yaml").write_text("nothing: 1\n")
    assert commit() != before
    (tmp_path / "brake").unlink()
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stdout + stderr
    found = results(root).values()
    assert [result["nfe"] for result in found] == [20, 20]
    assert {result["git_commit"] for result in found} == {before}
    assert {result["git_dirty"] for result in found} == {False}


@slow
def test_a_job_sees_its_own_gpu_and_too_many_are_refused_in_one_line(tmp_path: Path) -> None:
    """There need be no GPU: what a job could see is noted as it imports the user's module."""
    own(tmp_path)
    words = ["-m", *SHORT, "trainer.accelerator=gpu", "diffuser.loss._target_=mine.Counted", "sampler=ddim"]
    refused = train(tmp_path, *words, "trainer.devices=3", expect=2, CUDA_VISIBLE_DEVICES="5,7")
    assert len(told(refused)) == 1, refused.stderr
    assert "trainer.devices=3 GPUs are asked for and this machine has 2" in refused.stderr
    assert not list(tmp_path.glob("runs/fits/*"))
    (tmp_path / "imports.jsonl").unlink()
    done = train(tmp_path, *words, "schedule=cosine,linear", expect=1, CUDA_VISIBLE_DEVICES="5,7")
    # The check before anything starts sees both; each job sees its own.
    assert sorted(one["cuda"] for one in noted(tmp_path / "imports.jsonl")) == ["5", "5,7", "7"]
    assert "no such trainer here" in done.stdout


@slow
def test_two_devices_are_one_job(tmp_path: Path) -> None:
    own(tmp_path)
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32-true"]
    ddp += ["trainer.compile=false", "trainer.deterministic=true", "trainer.threads=1"]
    listener = "+hydra.callbacks.mine._target_=listener.Listener"
    train(
        tmp_path,
        "-m",
        *SHORT,
        *ddp,
        "sampler=ddim,heun",
        "diffuser.loss._target_=mine.Counted",
        listener,
        "hydra.launcher.cells_per_job=2",
        PYTHONPATH=str(tmp_path),
    )
    assert len(results(tmp_path)) == 2
    rows = noted(one(tmp_path, "runs/fits/*/metrics.jsonl"))
    assert [row["step"] for row in rows] == [9, 19, 29, 39]
    # Each rank computes losses, none of them twice.
    assert len(noted(tmp_path / "trainings.jsonl")) == 2
    counts = Counter(one["event"] for one in noted(tmp_path / "heard.jsonl"))
    assert counts == {"multirun_start": 1, "multirun_end": 1, "job_start": 2, "job_end": 2}


@slow
def test_a_student_waits_for_the_teacher_that_is_trained_in_the_same_sweep(tmp_path: Path) -> None:
    options = tmp_path / "own" / "experiment"
    options.mkdir(parents=True)
    head = "# @package _global_\ndefaults:\n"
    (options / "b_teacher.yaml").write_text(head + "  - override /diffuser: edm\n")
    words = ["--config-dir", "own", "-m", *TINY, "training.steps=100"]
    plan = train(tmp_path, *words, "experiment=b_teacher", "mode=plan").stdout
    found = re.search(r"train (\w{12}) ", plan)
    assert found, plan
    student = head + "  - override /diffuser: consistency_distillation\n  - override /sampler: consistency\n"
    student += f"diffuser:\n  teacher: '{found[1]}'\n  warm_start: false\n"
    (options / "a_student.yaml").write_text(student)
    train(tmp_path, *words, "experiment=a_student,b_teacher")
    taught, teacher = (
        next(result for result in results(tmp_path).values() if result["diffuser"] == name)
        for name in ("consistency_distillation", "edm")
    )
    assert teacher["fit"] == found[1]
    order = {fit: (tmp_path / "runs" / "fits" / fit) for fit in (teacher["fit"], taught["fit"])}
    ended = (order[teacher["fit"]] / "done.json").stat().st_mtime_ns
    assert ended < (order[taught["fit"]] / "config.yaml").stat().st_mtime_ns


@slow
def test_of_two_sweeps_at_once_each_shared_fit_is_trained_once(tmp_path: Path) -> None:
    """One of them is Hydra's own sweeper, which hands its cells over in batches."""
    own(tmp_path)
    words = ["-m", *TINY, "training.steps=200", "diffuser.loss._target_=mine.Counted", "schedule=cosine,linear"]
    first = start(tmp_path, command(*words, "sampler=ddim,heun"))
    batches = ["hydra/sweeper=basic", "hydra.sweeper.max_batch_size=3"]
    second = start(tmp_path, command(*words, "sampler=heun,euler_ancestral", *batches))
    said = [process.communicate(timeout=PATIENCE) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], said
    assert len(noted(tmp_path / "trainings.jsonl")) == 2
    assert len(results(tmp_path)) == 6
    assert all("4 runs of 2 trainings" in stdout for stdout, _ in said)
    for fit in tmp_path.glob("runs/fits/*"):
        assert [row["step"] for row in noted(fit / "metrics.jsonl")] == list(range(9, 200, 10))


# ---- who gets what, without any process


def pool(
    tmp_path: Path,
    trainers: Sequence[Mapping[str, Any]],
    room: MachineResources,
    most: int | None = None,
    cells: int = 1,
) -> LocalPool:
    """Fits of these trainers, each with so many cells in jobs of their own."""
    entries = [
        SignedConfig((f"x={i}", f"y={j}"), {"trainer": trainer}, {}, f"fit{i}", f"cell{i}-{j}")
        for i, trainer in enumerate(trainers)
        for j in range(cells)
    ]
    plan = Plan(tmp_path / "sweeps" / "one", tmp_path).with_tasks(entries)
    return LocalPool(plan, RemainingWork.of(plan).jobs(plan, 1), tmp_path, RetryPolicy(plan, 0), room, most)


def gpu(devices: Any) -> dict[str, Any]:
    return {"accelerator": "gpu", "devices": devices, "threads": None}


def cpu(threads: int | None = None, devices: int = 1) -> dict[str, Any]:
    return {"accelerator": "cpu", "devices": devices, "threads": threads}


def test_small_jobs_share_gpus_evenly(tmp_path: Path) -> None:
    one = pool(tmp_path, [gpu(1)] * 5, MachineResources(8, ("0", "1"), 2))
    taken = [one._take(place) for place in range(5)]
    assert taken[-1] is None
    assert Counter(taken[:4]) == {("0",): 2, ("1",): 2}
    assert taken[0] != taken[1]


@pytest.mark.parametrize("devices", [2, "2", "auto", -1, [0, 1]])
def test_a_job_of_several_gpus_gets_different_ones(tmp_path: Path, devices: Any) -> None:
    one = pool(tmp_path, [gpu(1), gpu(devices), gpu(devices)], MachineResources(8, ("0", "1"), 2))
    assert one._take(0) == ("0",)
    assert sorted(one._take(1) or ()) == ["0", "1"]
    assert one._take(2) is None
    assert one._take(0) == ("1",)


def test_a_gpu_is_one_jobs_own_unless_shared(tmp_path: Path) -> None:
    one = pool(tmp_path, [gpu(1)] * 3, MachineResources(8, ("GPU-a", "GPU-b")))
    assert [one._take(place) for place in range(3)] == [("GPU-a",), ("GPU-b",), None]


@pytest.mark.parametrize(("devices", "gpus"), [(3, ("0", "1")), (1, ()), ("auto", ()), (0, ("0",))])
def test_gpus_that_are_not_there_are_refused(tmp_path: Path, devices: Any, gpus: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=f"devices={devices} .*this machine has {len(gpus)}") as caught:
        pool(tmp_path, [gpu(devices)], MachineResources(8, gpus))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fits", "most", "share"), [(1, None, 8), (2, None, 4), (3, None, 2), (20, None, 1), (20, 2, 4), (1, 3, 8)]
)
def test_cores_are_shared_by_what_can_run_at_once(tmp_path: Path, fits: int, most: int | None, share: int) -> None:
    one = pool(tmp_path, [cpu()] * fits, MachineResources(8), most)
    assert one._demands[0] == (share, 0)
    taken = [place for place in range(fits) if one._take(place) is not None]
    assert len(taken) == min(fits, 8 // share)


def test_threads_that_are_asked_for_are_cores_that_are_taken(tmp_path: Path) -> None:
    one = pool(tmp_path, [cpu(3)] * 3, MachineResources(8))
    assert [one._take(place) is not None for place in range(3)] == [True, True, False]
    # More than there are: alone, not never.
    assert pool(tmp_path, [cpu(64)], MachineResources(8))._take(0) == ()
    assert pool(tmp_path, [cpu(2, devices=2)] * 2, MachineResources(7))._demands[0] == (4, 0)


def test_the_machine_is_what_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", " 3, 5 ")
    assert MachineResources.detect().gpus == ("3", "5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert MachineResources.detect().gpus == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert MachineResources.detect().gpus == ()
    with pytest.raises(ValueError, match="jobs_per_gpu=0 must be 1 or more"):
        MachineResources.detect(0)


def test_a_pool_without_places_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="jobs=0 must be 1 or more"):
        pool(tmp_path, [cpu()], MachineResources(8), most=0)
