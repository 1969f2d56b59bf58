"""Runs as a user starts them: real processes, real kills, real signals, and what is left on the disk."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import brake
import forked_runs
from tiny import TINY

ROOT = Path(__file__).parent.parent
# Seconds that a step may take on a machine that is busy with other things; on an idle one none takes ten.
PATIENCE = 400
pytestmark = pytest.mark.slow


def arguments(runs: Path, *overrides: str) -> list[str]:
    """Of Python, for a run."""
    return [str(ROOT / "train.py"), *TINY, f"paths.runs={runs}", *overrides]


def environment(runs: Path) -> dict[str, str]:
    # Trainings with `brake.LOSS` are slow while there is a file `brake` beside the runs.
    return {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", **brake.environment(runs / "brake")}


def train(runs: Path, *overrides: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = forked_runs.run(arguments(runs, *overrides), Path.cwd(), environment(runs), PATIENCE)
    assert not check or done.returncode == 0, done.stderr
    return done


def train_in_new_python(runs: Path, *overrides: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """As `train`, in a process that has imported nothing; `options` of Python."""
    return subprocess.run(
        [sys.executable, *options, *arguments(runs, *overrides)],
        capture_output=True,
        text=True,
        env=environment(runs),
        timeout=PATIENCE,
        check=True,
    )


def start(runs: Path, *overrides: str) -> forked_runs.Run:
    return forked_runs.Run(arguments(runs, *overrides), Path.cwd(), environment(runs))


def one(runs: Path, pattern: str) -> Path:
    found = sorted(runs.glob(pattern))
    assert len(found) == 1, found
    return found[0]


def wait_for(true: Callable[[], object], process: forked_runs.Run) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def lines(runs: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what the clock decides."""
    text = one(runs, "fits/*/metrics.jsonl").read_text()
    return [
        {key: value for key, value in json.loads(row).items() if key != "images_per_second"}
        for row in text.splitlines()
    ]


LONG = ("training.steps=400", brake.LOSS)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("undisturbed")
    train(runs, *LONG)
    return runs


def test_killed_and_resumed_ends_with_the_same_bits(undisturbed: Path, tmp_path: Path) -> None:
    """kill -9 at several points, then SIGTERM, then to the end: weights and metrics of an undisturbed training."""
    overrides = (*LONG, "trainer.checkpoint_seconds=0.05")
    (tmp_path / "brake").touch()

    def next_checkpoint(process: forked_runs.Run, before: list[int]) -> None:
        wait_for(lambda: checkpoint() != before, process)

    def checkpoint() -> list[int]:
        return [path.stat().st_mtime_ns for path in tmp_path.glob("fits/*/checkpoints/last.ckpt")]

    for checkpoints in (1, 3, 5):
        before = checkpoint()
        process = start(tmp_path, *overrides)
        for _ in range(checkpoints):
            next_checkpoint(process, before)
            before = checkpoint()
        process.kill()
        process.communicate()
        assert not list(tmp_path.glob("fits/*/done.json"))
        assert not list(tmp_path.glob("fits/*/cells/*/result.json"))
    before = checkpoint()
    process = start(tmp_path, *overrides)
    next_checkpoint(process, before)
    assert one(tmp_path, "fits/*/lease-000004.json").exists()
    status = one(tmp_path, "fits/*/status.json")
    assert json.loads(status.read_text())["pid"] == process.pid
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert "the same command goes on from there" in stderr
    assert json.loads(status.read_text())["state"] == "waiting"

    (tmp_path / "brake").unlink()
    assert "going on from its checkpoint" in train(tmp_path, *overrides).stderr
    weights = "fits/*/checkpoints/ema.safetensors"
    assert one(tmp_path, weights).read_bytes() == one(undisturbed, weights).read_bytes()
    assert lines(tmp_path) == lines(undisturbed)
    results = [json.loads(one(runs, "fits/*/cells/*/result.json").read_text()) for runs in (tmp_path, undisturbed)]
    assert results[0]["w2_points"] == results[1]["w2_points"]


def test_a_finished_run_answers_at_once_and_a_sampler_reuses_the_training(undisturbed: Path) -> None:
    weights = one(undisturbed, "fits/*/checkpoints/ema.safetensors")
    before = weights.stat().st_mtime_ns
    again = train_in_new_python(undisturbed, *LONG, options=["-X", "importtime"])
    assert "already done" in again.stderr
    imported = {row.rpartition("|")[2].strip() for row in again.stderr.splitlines() if row.startswith("import time:")}
    assert "hydra" in imported
    assert not imported & {"torch", "lightning", "wandb", "numpy"}

    train(undisturbed, *LONG, "sampler=heun", "sampler.nfe=9")
    assert weights.stat().st_mtime_ns == before
    results = [json.loads(path.read_text()) for path in undisturbed.glob("fits/*/cells/*/result.json")]
    assert {(result["sampler"], result["nfe"], result["steps"]) for result in results} == {
        ("recommended", 20, 20),
        ("heun", 9, 5),
    }
    assert len({result["fit"] for result in results}) == 1
    train(undisturbed, "training.steps=20", "schedule=linear")
    assert len(list(undisturbed.glob("fits/*/done.json"))) == 2


def test_a_sweep_trains_each_model_once_and_ends_with_one_table(tmp_path: Path) -> None:
    """2 samplers x 2 schedules x 2 spacings: two trainings, eight results."""
    swept = ["training.steps=30", "sampler=ddim,heun", "schedule=cosine,rectified", "-m"]
    done = train(tmp_path, *swept, "sampler/spacing=karras,logsnr")
    assert len(list(tmp_path.glob("fits/*/done.json"))) == 2
    assert len(list(tmp_path.glob("fits/*/cells/*/result.json"))) == 8
    assert "Traceback" not in done.stderr
    table = done.stdout
    assert (one(tmp_path, "sweeps/*") / "table.csv").read_text().count("\n") == 9
    scores = sorted(json.loads(path.read_text())["w2_points"] for path in tmp_path.glob("fits/*/cells/*/result.json"))
    rows = [row.split() for row in table.splitlines() if row[:1].isdigit() and " runs of " not in row]
    assert [row[0] for row in rows][:8] == [str(n + 1) for n in range(8)]
    shown = [float(word) for row in rows[:8] for word in row if word.count(".") == 1 and word[0].isdigit()]
    assert shown[0] == pytest.approx(scores[0], rel=1e-3)


def test_a_parallel_launcher_gives_the_same_sweep(tmp_path: Path) -> None:
    """Jobs in processes of another launcher find each other by the leases, and the table is still one."""
    swept = ["training.steps=100", "sampler=ddim,heun", "schedule=cosine,linear"]
    done = train_in_new_python(tmp_path, *swept, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "-m")
    assert len(list(tmp_path.glob("fits/*/done.json"))) == 2
    results = [json.loads(path.read_text()) for path in tmp_path.glob("fits/*/cells/*/result.json")]
    assert len(results) == 4
    assert "4 runs of 2 trainings" in done.stdout
    for fit in tmp_path.glob("fits/*"):
        steps = [json.loads(row)["step"] for row in (fit / "metrics.jsonl").read_text().splitlines()]
        assert steps == list(range(9, 100, 10))


def test_two_processes_never_train_the_same_fit(tmp_path: Path) -> None:
    (tmp_path / "brake").touch()
    both = [start(tmp_path, "training.steps=400", brake.LOSS, f"sampler={name}") for name in ("ddim", "dpmpp_2m")]

    def said() -> str:
        return "".join(process.stderr_file.read_text() for process in both)

    wait_for(lambda: "is being trained by" in said(), both[0])
    (tmp_path / "brake").unlink()
    assert [process.wait(PATIENCE) for process in both] == [0, 0], said()
    assert said().count("is being trained by") == 1
    assert "going on from" not in said()
    assert len(list(tmp_path.glob("fits/*/cells/*/result.json"))) == 2
    steps = [row["step"] for row in lines(tmp_path)]
    assert steps == list(range(9, 400, 10))


def test_two_devices_train_and_sample_as_one(tmp_path: Path) -> None:
    ddp = [
        "trainer=ddp",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "trainer.precision=32-true",
        "trainer.compile=false",
        "trainer.deterministic=true",
    ]
    # The second rank is a process that the first one starts.
    train_in_new_python(tmp_path / "two", "training.steps=60", *ddp)
    train(tmp_path / "one", "training.steps=60")
    weights = [load_file(one(tmp_path / n, "fits/*/checkpoints/ema.safetensors")) for n in ("one", "two")]
    for name, value in weights[0].items():
        # One sum over the batch or two halves of it: rounding, made larger by Adam, is all that may differ.
        assert float((value - weights[1][name]).abs().max()) < 1e-3
    results = [json.loads(one(tmp_path / n, "fits/*/cells/*/result.json").read_text()) for n in ("one", "two")]
    assert results[0]["fit"] == results[1]["fit"]
    assert results[0]["cell"] == results[1]["cell"]
    assert results[0]["w2_points"] == pytest.approx(results[1]["w2_points"], rel=0.02)
    losses = [lines(tmp_path / n)[0]["loss"] for n in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    # The same weights, evaluated by one device: the same numbers.
    shutil.rmtree(one(tmp_path / "two", "fits/*/cells"))
    train(tmp_path / "two", "training.steps=60")
    again = json.loads(one(tmp_path / "two", "fits/*/cells/*/result.json").read_text())
    distances = {name: value for name, value in again.items() if f"{name}_floor" in again}
    assert "w2_points" in distances
    assert distances == pytest.approx({name: results[1][name] for name in distances}, rel=1e-6)


def test_loggers_mirror_the_record(tmp_path: Path) -> None:
    train(tmp_path, "training.steps=40", "logger=csv")
    table = one(tmp_path, "fits/*/csv/metrics.csv").read_text().splitlines()
    assert "loss" in table[0]
    assert len(table) - 1 == len(lines(tmp_path)) == 4
    other = tmp_path / "wandb"
    done = train(other, "training.steps=40", "logger=wandb", "logger.wandb.mode=offline")
    assert done.stderr.count("W&B is offline; to send this run: wandb sync") == 2
    assert list(other.glob("fits/*/wandb/offline-run-*/*.wandb"))
    assert list(other.glob("fits/*/cells/*/wandb/offline-run-*/*.wandb"))


def test_a_training_that_diverges_says_what_to_change(tmp_path: Path) -> None:
    done = train(tmp_path, "training.steps=200", "optimizer.lr=1e30", "training.clip=null", check=False)
    assert done.returncode == 2
    assert "training diverged; lower optimizer.lr" in done.stderr
    assert "Traceback" not in done.stderr
    assert "training diverged" in one(tmp_path, "fits/*/cells/*/error.txt").read_text()
    assert not list(tmp_path.glob("fits/*/done.json"))


def test_a_corrupt_checkpoint_is_named(tmp_path: Path) -> None:
    process = start(tmp_path, "training.steps=100000", "trainer.checkpoint_seconds=0.05")
    wait_for(lambda: list(tmp_path.glob("fits/*/checkpoints/last.ckpt")), process)
    process.kill()
    process.communicate()
    checkpoint = one(tmp_path, "fits/*/checkpoints/last.ckpt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    done = train(tmp_path, "training.steps=100000", "trainer.checkpoint_seconds=0.05", check=False)
    assert done.returncode == 2
    assert f"{checkpoint} is damaged" in done.stderr
    assert "move it away to train from the start" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
@pytest.mark.parametrize(
    ("option", "reason"), [("size=32k", "cannot write"), ("ro", "cannot be written: .* is on a read-only file system")]
)
def test_a_disk_that_refuses_costs_one_line(tmp_path: Path, option: str, reason: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        done = train(disk / "runs", "training.steps=30", check=False)
        left = list(disk.glob("runs/**/result.json"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert done.returncode == 2, done.stderr
    assert re.search(reason, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert not left
