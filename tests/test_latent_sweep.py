"""Sweeps of three levels: autoencoders, then fits, then cells; each is made once, whoever is killed in between."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import brake
import forked_runs
import slurm_sweeps
from diffsweep.sweep.plan.jobs import Job, RemainingWork
from diffsweep.sweep.plan.plan import Plan, SignedConfig
from diffsweep.sweep.status.monitor import Monitor
from diffsweep.sweep.store.garbage import free, garbage
from diffsweep.sweep.store.record import AutoencoderRecord, Fit
from processes import kill_with_children
from slurm import Cluster
from test_autoencoders import TINY

ROOT = Path(__file__).parent.parent
PATIENCE = 400
AXES = ["autoencoder.seed=0,1", "schedule=cosine,linear", "sampler=ddim,heun,euler"]
WORDS = [*(word for word in TINY if not word.startswith("sampler=")), brake.LOSS, brake.AUTOENCODER]


def start(cwd: Path, *words: str) -> forked_runs.Run:
    cwd.mkdir(exist_ok=True)
    return forked_runs.Run(list(words), cwd, {**os.environ, "OMP_NUM_THREADS": "1", **brake.environment(cwd / "brake")})


def run(cwd: Path, *words: str, expect: int = 0) -> str:
    process = start(cwd, *words)
    printed, errors = process.communicate(PATIENCE)
    assert process.returncode == expect, printed + errors
    return printed + errors


def train(*words: str) -> list[str]:
    return [str(ROOT / "train.py"), "-m", *WORDS, *words]


def sweep_of(cwd: Path) -> Path:
    (found,) = cwd.glob("runs/sweeps/*")
    return found


def stamps(cwd: Path, pattern: str) -> set[int]:
    return {path.stat().st_mtime_ns for path in cwd.glob(f"runs/{pattern}")}


def files(cwd: Path) -> dict[str, bytes]:
    patterns = ("autoencoders/*/checkpoints/*", "autoencoders/*/latents/*", "fits/*/checkpoints/*")
    found = [path for pattern in (*patterns, "fits/*/cells/*/samples.png") for path in cwd.glob(f"runs/{pattern}")]
    return {str(path.relative_to(cwd)): path.read_bytes() for path in found if path.name[0] != "."}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    cwd = tmp_path_factory.mktemp("calm")
    return cwd, run(cwd, *train(*AXES))


@pytest.mark.slow
def test_two_autoencoders_four_fits_and_twelve_cells_are_each_made_once(calm: tuple[Path, str]) -> None:
    cwd, said = calm
    assert "12 cells of 4 trainings and 2 autoencoders" in said
    assert "12 runs of 4 trainings" in said
    plan = Plan.read(sweep_of(cwd))
    assert (len(plan.autoencoders), len(plan.fits), len(plan.cells)) == (2, 4, 12)
    assert len(stamps(cwd, "autoencoders/*/done.json")) == 2
    assert len(stamps(cwd, "fits/*/done.json")) == 4
    assert len(stamps(cwd, "fits/*/cells/*/result.json")) == 12
    logs = [path.name.partition("-")[0] for path in sweep_of(cwd).glob("logs/*.log")]
    assert (logs.count("autoencoder"), logs.count("fit")) == (2, 4)
    state = Monitor(plan).read()
    assert state.fit_counts["done"] == 6
    assert [plan.training(name).noun for name in state.fits] == ["autoencoder"] * 2 + ["fit"] * 4
    # Both ends are told: what the autoencoder costs, and what the model.
    for path in cwd.glob("runs/fits/*/cells/*/result.json"):
        result = json.loads(path.read_text())
        done = json.loads((cwd / "runs/autoencoders" / result["autoencoder"] / "done.json").read_text())
        assert result["fd_digits_reconstruction"] == done["fd_digits"]
        assert result["autoencoder_seconds"] == done["seconds"]
    again = run(cwd, *train(*AXES, f"hydra.sweep.dir={sweep_of(cwd)}"))
    assert "12 done already, 0 to do, every training is done" in again


@pytest.mark.slow
def test_killed_in_every_level_a_sweep_ends_with_the_bits_of_an_undisturbed_one(
    calm: tuple[Path, str], tmp_path: Path
) -> None:
    rough = tmp_path / "rough"

    def kill_when(words: list[str], true: Callable[[], object]) -> None:
        process = start(rough, *words)
        end = time.monotonic() + PATIENCE
        while not true():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
        psutil.wait_procs(kill_with_children(process.pid))
        process.communicate()

    pace = "trainer.checkpoint_seconds=0.01"
    rough.mkdir()
    (rough / "brake").write_text("adam 20")
    kill_when(train(*AXES, pace), lambda: stamps(rough, "autoencoders/*/checkpoints/last.ckpt"))
    assert not stamps(rough, "autoencoders/*/done.json")
    again = ["-m", "diffsweep", "resume", "last"]
    (rough / "brake").write_text("loss 20")
    kill_when(again, lambda: stamps(rough, "autoencoders/*/latents/shard-00000.npy"))
    assert not stamps(rough, "fits/*/done.json")
    kill_when(again, lambda: stamps(rough, "fits/*/checkpoints/last.ckpt"))
    assert not stamps(rough, "fits/*/cells/*/result.json")
    (rough / "brake").unlink()
    kill_when(again, lambda: stamps(rough, "fits/*/cells/*/result.json"))
    run(rough, *again)
    assert files(rough) == files(calm[0])
    values = [
        {
            path.parent.name: json.loads(path.read_text())["fd_digits"]
            for path in cwd.glob("runs/fits/*/cells/*/result.json")
        }
        for cwd in (rough, calm[0])
    ]
    assert values[0] == values[1]
    assert len(values[0]) == 12


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_a_cluster_each_level_waits_for_the_one_before_and_survives_a_kill(
    calm: tuple[Path, str], cluster: Cluster, tmp_path: Path
) -> None:
    """The process of a job is killed in the first and in the second level: the job begins it again."""
    slurm = ["hydra/launcher=slurm", "hydra.launcher.poll_seconds=1", "resources.finish.memory=400MB"]
    axes = ["autoencoder.seed=0,1", "schedule=cosine", "sampler=ddim,heun,euler"]
    words = train(*axes, *slurm, "trainer.checkpoint_seconds=0.01")
    stop = tmp_path / "brake"
    stop.write_text("adam 20")
    process = forked_runs.Run(words, tmp_path, slurm_sweeps.environment(cluster) | brake.environment(stop))
    runs = tmp_path / "runs"
    for level, after in (("autoencoders", "loss 20"), ("fits", "")):
        slurm_sweeps.wait_for(lambda level=level: stamps(tmp_path, f"{level}/*/checkpoints/last.ckpt"), level)
        checkpoint = next(runs.glob(f"{level}/*/checkpoints/last.ckpt"))
        status = json.loads((checkpoint.parent.parent / "status.json").read_text())
        os.kill(status["pid"], signal.SIGKILL)
        stop.write_text(after)
    printed, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert "6 runs of 2 trainings" in printed
    jobs = slurm_sweeps.jobs(runs)
    kinds = [job["kind"] for job in jobs]
    assert (kinds.count("autoencoder"), kinds.count("fit"), kinds.count("cells")) == (2, 2, 2)
    # Those that wait for nothing are one array.
    assert len({job["id"].partition("_")[0] for job in jobs if job["kind"] == "autoencoder"}) == 1
    for job in jobs:
        earlier = [jobs[index]["kind"] for index in job["after"]]
        assert earlier == {"fit": ["autoencoder"], "cells": ["fit", "autoencoder"]}.get(job["kind"], [])
    made = files(tmp_path)
    assert made
    assert made.items() <= files(calm[0]).items()


@pytest.mark.slow
def test_what_an_autoencoder_that_fails_stops_says_so(tmp_path: Path) -> None:
    broken = ["autoencoder.seed=0", "autoencoder.optimizer.lr=1e12", "autoencoder.training.clip=null", "sampler=ddim"]
    said = run(tmp_path, *train(*broken, "schedule=cosine,linear"), expect=1)
    assert "training diverged" in said
    plan = Plan.read(sweep_of(tmp_path))
    state = Monitor(plan).read()
    (encoder,) = plan.autoencoders
    assert state.fits[encoder].state == "failed"
    assert [state.fits[fit].state for fit in plan.fits] == ["blocked"] * 2
    assert {item.state for item in state.cells.values()} == {"blocked"}
    assert all(f"not run: autoencoder {encoder} failed" in item.reason for item in state.cells.values())


def test_jobs_come_level_by_level(tmp_path: Path) -> None:
    signed = [
        SignedConfig((f"a={a}", f"f={f}", f"s={s}"), {"trainer": {}}, {}, f"fit{a}{f}", f"cell{a}{f}{s}", f"encoder{a}")
        for a in range(2)
        for f in range(2)
        for s in range(3)
    ]
    plan = Plan(tmp_path / "runs/sweeps/s", tmp_path / "runs").with_tasks(signed)
    jobs = RemainingWork.of(plan).jobs(plan)
    assert [job.kind for job in jobs] == ["autoencoder"] * 2 + ["fit"] * 4 + ["cells"] * 4
    for job in jobs:
        earlier = [jobs[index].fit for index in job.after]
        number = job.fit.removeprefix("fit").removeprefix("encoder")[0]
        wanted = {"autoencoder": [], "fit": [f"encoder{number}"], "cells": [job.fit, f"encoder{number}"]}
        assert earlier == wanted[job.kind]
    assert jobs[0].cells == tuple(f"cell0{f}{s}" for f in range(2) for s in range(3))
    # What is done is not done again; a plan on the disk says the same, and one of former versions has no autoencoder.
    AutoencoderRecord(tmp_path / "runs/autoencoders/encoder0").write_done({})
    plan.write()
    read = Plan.read(plan.folder)
    assert [job.fit for job in RemainingWork.of(read).jobs(read) if job.kind == "autoencoder"] == ["encoder1"]
    content = json.loads(plan.file.read_text())
    for task in content["tasks"]:
        del task["autoencoder"]
    plan.file.write_text(json.dumps(content))
    former = Plan.read(plan.folder)
    assert former.autoencoders == {}
    assert [job.kind for job in RemainingWork.of(former).jobs(former)] == ["fit"] * 4 + ["cells"] * 4
    assert Job.parse({"kind": "fit", "fit": "a", "cells": ["b"], "after": [0]}).trains


def test_an_abandoned_autoencoder_is_garbage_unless_a_sweep_names_it(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    wanted, left, done = (AutoencoderRecord(runs / "autoencoders" / name) for name in ("wanted", "left", "done"))
    for record in (wanted, left, done):
        record.checkpoints.mkdir(parents=True)
        record.latents.mkdir()
        (record.checkpoints / "last.ckpt").write_bytes(b"c")
        (record.latents / "shard-00000.npy").write_bytes(b"l")
        record.write_status("waiting", step=1, steps=2)
    done.write_done({})
    Plan(runs / "sweeps/s", runs).with_tasks([SignedConfig((), {}, {}, "fit", "cell", "wanted")]).write()
    for path in runs.rglob("*"):
        os.utime(path, (1, 1))
    found = {one.path: one for one in garbage(runs)}
    assert set(found) == {left.folder, done.checkpoints / "last.ckpt"}
    for one in found.values():
        assert free(one, runs) > 0
    assert not list(left.folder.rglob("*.npy"))
    assert (wanted.latents / "shard-00000.npy").exists()
    assert (done.latents / "shard-00000.npy").exists()
    assert Fit(done.folder).done
