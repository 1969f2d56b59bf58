"""Sweeps on a real SLURM cluster: what is submitted behind what, and that nobody need wait for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import brake
from processes import PROGRAMS
from slurm import Cluster
from slurm_sweeps import (
    PATIENCE,
    ROOT,
    accounts,
    arguments,
    diffsweep,
    environment,
    jobs,
    latest,
    lines,
    one,
    results,
    start,
    sweep,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_each_model_is_trained_once_as_it_was_submitted_and_a_finished_sweep_submits_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The package, its configs and the user's own module are all edited while the jobs wait."""
    root, runs = tmp_path / "checkout", tmp_path / "runs"
    for name in ("src", "conf", "sweeps"):
        shutil.copytree(ROOT / name, root / name, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info"))
    shutil.copy(ROOT / "train.py", root)
    shutil.copy(PROGRAMS / "mine.py", root)
    before = accounts(cluster)
    words = ("sampler=ddim,heun,dpmpp_2m", "schedule=cosine,linear", "diffuser.loss._target_=mine.Counted")
    cluster.scontrol("update", "nodename=gpu[1-4]", "state=drain", "reason=test")
    try:
        # A Python of its own: a fork has imported our package already.
        process = subprocess.Popen(
            [sys.executable, *arguments(runs, *words, root=root)],
            env=environment(cluster) | {"PYTHONPATH": str(root / "src")},
            cwd=root,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        wait_for(lambda: list(runs.glob("sweeps/*/jobs.json")) and len(jobs(runs)) == 5, "five jobs")
        submitted = jobs(runs)
        fits = {job["fit"]: job["id"] for job in submitted if job["kind"] == "fit"}
        cells = [job for job in submitted if job["kind"] == "cells"]
        (finish,) = [job for job in submitted if job["kind"] == "finish"]
        assert len(fits) == 2
        # Both in one array; every job of cells behind its own fit, and gone with it; the table behind all.
        assert len({name.partition("_")[0] for name in fits.values()}) == 1
        for job in cells:
            shown = cluster.scontrol("show", "job", job["id"])
            assert len(job["cells"]) == 3
            assert f"afterok:{fits[job['fit']]}" in shown
            assert "KillOInInvalidDependent=Yes" in shown
        assert "afterany" in cluster.scontrol("show", "job", finish["id"])
        (root / "mine.py").write_text("raise SystemExit('the edited module')\n")
        (root / "src" / "diffsweep" / "runs" / "stages.py").write_text("raise SystemExit('the edited package')\n")
        (root / "conf" / "sampler" / "ddim.yaml").write_text("nfe: 1\n")
    finally:
        cluster.scontrol("update", "nodename=gpu[1-4]", "state=resume")
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr
    assert "6 runs of 2 trainings" in stdout
    found = results(runs)
    assert len(found) == 6
    assert {result["nfe"] for result in found if result["sampler"] == "ddim"} == {20}
    assert len(list(runs.glob("fits/*/done.json"))) == 2
    assert len((root / "trainings.jsonl").read_text().splitlines()) == 2
    # SLURM's own book: which job came when.
    cluster.wait_until(lambda: not cluster.squeue(), "the last job")
    wanted = {job["id"] for job in submitted}
    wait_for(lambda: wanted <= accounts(cluster), "the accounts")
    rows = cluster.sacct("--allocations", "--format=JobID,State,Start,End").splitlines()
    book = {row.split("|")[0]: row.split("|")[1:] for row in rows}
    assert {book[name][0] for name in wanted} == {"COMPLETED"}
    for job in cells:
        assert book[fits[job["fit"]]][2] <= book[job["id"]][1]
    assert one(runs, "sweeps/*/table.csv").read_text().count("\n") == 7

    # The accounts trail the controller; of what was submitted by then the controller itself still knows.
    shutil.copy(PROGRAMS / "mine.py", root)
    last = latest(cluster)
    again = sweep(cluster, runs, *words, cwd=root)
    assert again.returncode == 0, again.stderr
    assert "6 done already, 0 to do" in again.stderr
    assert "6 runs of 2 trainings" in again.stdout
    assert latest(cluster) == last
    assert accounts(cluster) - before == wanted


def test_neither_a_new_controller_nor_a_dead_launcher_loses_anything(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "brake").touch()
    pace = brake.environment(tmp_path / "brake")
    process = start(cluster, tmp_path, "sampler=ddim,heun", "training.steps=1500", brake.LOSS, env=pace)
    wait_for(lambda: list(tmp_path.glob("sweeps/*/jobs.json")) and len(jobs(tmp_path)) == 3, "the jobs")
    wait_for(lambda: list(tmp_path.glob("fits/*/status.json")), "a training")
    process.kill()
    process.communicate()
    shown = diffsweep(cluster, tmp_path, "status", "last").stdout
    assert "SLURM" in shown
    with cluster.controller_down():
        unknown = diffsweep(cluster, tmp_path, "status", "last")
        assert unknown.returncode == 0, unknown.stderr
    (tmp_path / "brake").unlink()
    cluster.wait_until(lambda: not cluster.squeue(), "the sweep's own end", PATIENCE)
    assert len(results(tmp_path)) == 2
    # Nobody waited for it, and yet there is a table.
    assert one(tmp_path, "sweeps/*/table.csv").read_text().count("\n") == 3
    before = accounts(cluster)
    resumed = diffsweep(cluster, tmp_path, "resume", "last")
    assert resumed.returncode == 0, resumed.stderr
    assert "2 runs of 1 training" in resumed.stdout
    assert accounts(cluster) == before


def test_a_cancelled_sweep_leaves_no_job_and_goes_on_when_resumed(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "brake").touch()
    pace = brake.environment(tmp_path / "brake")
    done = sweep(
        cluster,
        tmp_path,
        "sampler=ddim,heun",
        "training.steps=1500",
        "trainer.checkpoint_seconds=0.5",
        "hydra.launcher.detach=true",
        brake.LOSS,
        env=pace,
    )
    assert done.returncode == 0, done.stderr
    assert "diffsweep status" in done.stderr
    assert not results(tmp_path)
    wait_for(lambda: list(tmp_path.glob("fits/*/checkpoints/last.ckpt")), "a checkpoint")
    cancelled = diffsweep(cluster, tmp_path, "cancel", "last")
    assert cancelled.returncode == 0, cancelled.stderr
    assert not cluster.squeue()
    assert "diffsweep resume" in cancelled.stdout
    (tmp_path / "brake").unlink()
    resumed = diffsweep(cluster, tmp_path, "resume", "last", env=pace)
    assert resumed.returncode == 0, resumed.stderr
    cluster.wait_until(lambda: not cluster.squeue(), "the sweep's own end", PATIENCE)
    assert len(results(tmp_path)) == 2
    logs = [path.read_text() for path in tmp_path.glob("sweeps/*/slurm/*_log.out")]
    assert any("going on from its checkpoint" in log for log in logs)


def test_of_two_sweeps_at_once_each_shared_fit_is_trained_once(cluster: Cluster, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copy(PROGRAMS / "mine.py", tmp_path)
    axes = [("sampler=ddim,heun", "schedule=cosine,linear"), ("sampler=heun,dpmpp_2m", "schedule=linear,cosine")]
    common = ("training.steps=200", "diffuser.loss._target_=mine.Counted")
    # On a cluster that keeps no accounts.
    silent = {"PATH": cluster.without_sacct()["PATH"]}
    both = [start(cluster, runs, *own, *common, cwd=tmp_path, env=silent) for own in axes]
    said = [process.communicate(timeout=PATIENCE) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    found = results(runs)
    assert len({result["cell"] for result in found}) == len(found) == 6
    assert len(list(runs.glob("sweeps/*/table.csv"))) == 2
    assert len((tmp_path / "trainings.jsonl").read_text().splitlines()) == len(list(runs.glob("fits/*/done.json"))) == 2


def test_a_training_on_two_nodes_is_one_training(cluster: Cluster, tmp_path: Path) -> None:
    """One task on each node; they find each other, train one model, and one of them writes it down."""
    done = sweep(
        cluster,
        tmp_path,
        "sampler=ddim,heun",
        "trainer.strategy=ddp",
        "trainer.num_nodes=2",
        # The nodes are virtual: their names lead nowhere.
        "resources.fit.setup=['export MASTER_ADDR=127.0.0.1']",
        "resources.cells.setup=['export MASTER_ADDR=127.0.0.1']",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(results(tmp_path)) == 2
    fit = next(job["id"] for job in jobs(tmp_path) if job["kind"] == "fit")
    assert "NumNodes=2" in cluster.scontrol("show", "job", fit)
    steps = [row["step"] for row in lines(tmp_path)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 39
