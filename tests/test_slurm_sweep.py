"""Sweeps on a real SLURM cluster: what is submitted behind what, and that nobody need wait for it."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

import brake
from slurm import Cluster
from slurm_sweeps import (
    FAULTS,
    PATIENCE,
    ROOT,
    accounts,
    command,
    diffsweep,
    environment,
    jobs,
    lines,
    one,
    results,
    start,
    sweep,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_each_model_is_trained_once_and_a_sweep_that_is_done_submits_nothing(cluster: Cluster, tmp_path: Path) -> None:
    before = accounts(cluster)
    axes = ("sampler=ddim,heun,dpmpp_2m", "schedule=cosine,linear")
    process = start(cluster, tmp_path, *axes)
    wait_for(lambda: list(tmp_path.glob("sweeps/*/jobs.json")) and len(jobs(tmp_path)) == 5, "five jobs")
    told = jobs(tmp_path)
    fits = {job["fit"]: job["id"] for job in told if job["kind"] == "fit"}
    cells = [job for job in told if job["kind"] == "cells"]
    (finish,) = [job for job in told if job["kind"] == "finish"]
    assert len(fits) == 2
    # Both in one array; every job of cells behind its own fit, and gone with it; the table behind all.
    assert len({name.partition("_")[0] for name in fits.values()}) == 1
    for job in cells:
        shown = cluster.scontrol("show", "job", job["id"])
        assert len(job["cells"]) == 3
        assert f"afterok:{fits[job['fit']]}" in shown or "JobState=PENDING" not in shown
        assert "KillOInInvalidDependent=Yes" in shown or "KillOnInvalidDependent" not in shown
    last = cluster.scontrol("show", "job", finish["id"])
    assert "afterany" in last or "JobState=PENDING" not in last
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr
    assert "6 runs of 2 trainings" in stdout
    assert len(results(tmp_path)) == 6
    assert len(list(tmp_path.glob("fits/*/done.json"))) == 2
    # SLURM's own book: which job came when.
    cluster.wait_until(lambda: not cluster.squeue(), "the last job")
    wanted = {job["id"] for job in told}
    wait_for(lambda: wanted <= accounts(cluster), "the accounts")
    rows = cluster.sacct("--allocations", "--format=JobID,State,Start,End").splitlines()
    book = {row.split("|")[0]: row.split("|")[1:] for row in rows}
    assert {book[name][0] for name in wanted} == {"COMPLETED"}
    for job in cells:
        assert book[fits[job["fit"]]][2] <= book[job["id"]][1]
    assert one(tmp_path, "sweeps/*/table.csv").read_text().count("\n") == 7

    after = accounts(cluster)
    again = sweep(cluster, tmp_path, *axes)
    assert again.returncode == 0
    assert "6 done already, 0 to do" in again.stderr
    assert "6 runs of 2 trainings" in again.stdout
    time.sleep(1)
    assert accounts(cluster) == after
    assert after - before == wanted


def test_neither_a_new_controller_nor_a_dead_launcher_loses_anything(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "brake").touch()
    pace = brake.environment(tmp_path / "brake")
    process = start(cluster, tmp_path, "sampler=ddim,heun", "training.steps=3000", brake.LOSS, env=pace)
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
        "training.steps=3000",
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


def test_what_is_edited_while_jobs_wait_changes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """The package, its configs and the user's own module are all edited between submission and start."""
    root = tmp_path / "checkout"
    for name in ("src", "conf", "sweeps"):
        shutil.copytree(ROOT / name, root / name, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info"))
    shutil.copy(ROOT / "train.py", root)
    (root / "faults.py").write_text(FAULTS)
    runs = tmp_path / "runs"
    cluster.scontrol("update", "nodename=gpu[1-4]", "state=drain", "reason=test")
    try:
        done = subprocess.run(
            command(
                runs,
                "sampler=ddim",
                "sampler.solver._target_=faults.Good",
                "hydra.launcher.detach=true",
                root=root,
            ),
            env=environment(cluster) | {"PYTHONPATH": str(root / "src")},
            cwd=root,
            text=True,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        (root / "faults.py").write_text("raise SystemExit('the edited module')\n")
        (root / "src" / "diffsweep" / "runs" / "stages.py").write_text("raise SystemExit('the edited package')\n")
        (root / "conf" / "sampler" / "ddim.yaml").write_text("nfe: 1\n")
    finally:
        cluster.scontrol("update", "nodename=gpu[1-4]", "state=resume")
    cluster.wait_until(lambda: not cluster.squeue(), "the sweep", PATIENCE)
    (result,) = results(runs)
    assert result["nfe"] == 20
    assert result["git_commit"] is None or isinstance(result["git_commit"], str)


COUNTED = """
import os
from diffsweep.diffusion.loss import SquaredError

class Counted:
    begun = False
    def __call__(self, prediction, target):
        # What is tried before a training begins asks for no gradient.
        if prediction.requires_grad and not self.begun:
            self.begun = True
            with open(os.environ["COUNT"], "a") as file:
                file.write(f"{os.getpid()}\\n")
        return SquaredError()(prediction, target)
"""


def test_of_two_sweeps_at_once_each_shared_fit_is_trained_once(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, count = tmp_path / "runs", tmp_path / "count"
    (tmp_path / "counted.py").write_text(COUNTED)
    monkeypatch.setenv("COUNT", str(count))
    axes = [("sampler=ddim,heun", "schedule=cosine,linear"), ("sampler=heun,dpmpp_2m", "schedule=linear,cosine")]
    common = ("training.steps=400", "diffuser.loss._target_=counted.Counted")
    # On a cluster that keeps no accounts.
    silent = {"PATH": cluster.without_sacct()["PATH"]}
    both = [start(cluster, runs, *own, *common, cwd=tmp_path, env=silent) for own in axes]
    said = [process.communicate(timeout=PATIENCE) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    found = results(runs)
    assert len({result["cell"] for result in found}) == len(found) == 6
    assert len(list(runs.glob("sweeps/*/table.csv"))) == 2
    assert len(count.read_text().splitlines()) == len(list(runs.glob("fits/*/done.json"))) == 2


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
