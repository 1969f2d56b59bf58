"""Sweeps on a real SLURM cluster: jobs that fail, die, run out of time and of memory, and what is left of the sweep."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from slurm import Cluster, missing

ROOT = Path(__file__).parent.parent
TINY = [
    "dataset=mixture",
    "backbone=mlp",
    "backbone.width=16",
    "backbone.depth=1",
    "training.batch_size=32",
    "training.warmup=10",
    "training.steps=40",
    "evaluation.samples=64",
    "trainer.log_every=10",
    "resources.finish.memory=400MB",
    "hydra/launcher=slurm",
    "hydra.launcher.poll_seconds=1",
]
PATIENCE = 300
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FAULTS = """
import os, time
import torch
from diffsweep.diffusion.solvers import Euler

class Faulty:
    order = 1
    nfe = staticmethod(lambda steps: steps)
    plan = staticmethod(lambda legs, schedule: None)

class Good(Faulty):
    def aim(self, denoise, x, t, s, memory):
        return denoise(x, t), None

class Raise(Faulty):
    def aim(self, denoise, x, t, s, memory):
        raise RuntimeError("no aim today")

class Kill(Faulty):
    def aim(self, denoise, x, t, s, memory):
        os.kill(os.getpid(), 9)

class Hungry(Faulty):
    def aim(self, denoise, x, t, s, memory):
        eaten = []
        while True:
            eaten.append(torch.ones(25_000_000))
            time.sleep(0.1)
"""


def environment(cluster: Cluster) -> dict[str, str]:
    return {**cluster.env, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}


def command(runs: Path, *overrides: str, root: Path = ROOT) -> list[str]:
    return [sys.executable, str(root / "train.py"), "-m", *TINY, f"paths.runs={runs}", *overrides]


def sweep(cluster: Cluster, runs: Path, *overrides: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(runs, *overrides),
        env=environment(cluster),
        cwd=cwd,
        text=True,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


def start(cluster: Cluster, runs: Path, *overrides: str, cwd: Path = ROOT) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(runs, *overrides),
        env=environment(cluster),
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def diffsweep(cluster: Cluster, runs: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "diffsweep", words[0], "--runs", str(runs), *words[1:]],
        env=environment(cluster),
        text=True,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


def jobs(runs: Path) -> list[dict[str, Any]]:
    """What jobs.json says of the newest sweep."""
    newest = max(runs.glob("sweeps/*/jobs.json"), key=lambda path: path.stat().st_mtime_ns)
    return json.loads(newest.read_text())["jobs"]


def results(runs: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(runs.glob("fits/*/cells/*/result.json"))]


def accounts(cluster: Cluster) -> set[str]:
    return set(cluster.sacct("--allocations", "--format=JobID").split())


def wait_for(true: Any, what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


def one(runs: Path, pattern: str) -> Path:
    (found,) = runs.glob(pattern)
    return found


def lines(runs: Path) -> list[dict[str, Any]]:
    """metrics.jsonl of the one fit, without what the clock decides."""
    rows = map(json.loads, one(runs, "fits/*/metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in row.items() if key != "images_per_second"} for row in rows]


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


def test_what_fails_costs_only_itself_and_says_why(tmp_path: Path) -> None:
    """A cell that raises, one that is killed, one that eats all memory; and a fit that diverges."""
    if missing():
        pytest.skip("no SLURM") if "CI" not in os.environ else pytest.fail("no SLURM")
    (tmp_path / "faults.py").write_text(FAULTS)
    runs = tmp_path / "runs"
    options = {
        "JobAcctGatherParams": "OverMemoryKill",
        "JobAcctGatherFrequency": "1",
        "SelectTypeParameters": "CR_Core_Memory",
    }
    with Cluster(options=options) as cluster:
        done = sweep(
            cluster,
            runs,
            "sampler=ddim",
            "sampler.solver._target_=faults.Good,faults.Raise,faults.Kill,faults.Hungry",
            "optimizer.lr=1e-3,1e30",
            "training.clip=null",
            "hydra.launcher.cells_per_job=1",
            "hydra.launcher.retries=1",
            "resources.fit.memory=1900MB",
            "resources.cells.memory=1900MB",
            cwd=tmp_path,
        )
        assert done.returncode == 1, done.stderr
        (result,) = results(runs)
        assert "faults.Good" in result["overrides"]
        said = done.stdout
        assert "4 not run and 3 failed" in said, said
        assert "no aim today" in said
        assert "killed by SIGKILL" in said
        assert "memory limit" in said
        assert re.search(r"not run: fit \w+ failed: ValueError: the loss is (?:nan|inf)", said)
        assert "diffsweep resume" in said
        # To SLURM, too, a job that failed has failed, and nothing waits for what can never be.
        states = {job["id"]: cluster.state(job["id"]) for job in jobs(runs) if job["kind"] == "fit"}
        assert sorted(states.values()) == ["COMPLETED", "FAILED"]
        cluster.wait_until(lambda: not cluster.squeue(), "an empty queue")
        shown = diffsweep(cluster, runs, "status", "last").stdout
        assert "7" in shown
        assert "no aim today" in shown
        # What is to be done again is only what is missing.
        (tmp_path / "faults.py").write_text(FAULTS.replace("raise RuntimeError", "return denoise(x, t), None #"))
        again = diffsweep(cluster, runs, "resume", "last")
        assert again.returncode == 1
        assert {result["overrides"].split("faults.")[1].split()[0] for result in results(runs)} == {"Good", "Raise"}
        assert len(list(runs.glob("fits/*/done.json"))) == 1


def test_a_disturbed_fit_ends_with_the_bits_of_an_undisturbed_one(cluster: Cluster, tmp_path: Path) -> None:
    """Requeued by hand, preempted, and hit by the death of its node: it goes on from its checkpoint each time."""
    steps = ("training.steps=6000", "trainer.checkpoint_seconds=0.3", "sampler=ddim")
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    process = start(cluster, rough, *steps)
    wait_for(lambda: list(rough.glob("sweeps/*/jobs.json")) and len(jobs(rough)) == 3, "the jobs")
    fit = next(job["id"] for job in jobs(rough) if job["kind"] == "fit")

    def trained_anew(before: int) -> None:
        # On the way again, and some way further.
        status = rough / "fits"

        def further() -> bool:
            found = [json.loads(path.read_text()) for path in status.glob("*/status.json")]
            checkpoints = list(status.glob("*/checkpoints/last.ckpt"))
            return bool(checkpoints) and any(one["state"] == "running" and one["step"] > before for one in found)

        wait_for(further, f"a step after {before}")

    def step() -> int:
        return json.loads(one(rough, "fits/*/status.json").read_text())["step"]

    trained_anew(0)
    first = step()
    cluster.scontrol("requeue", fit)
    cluster.start_now(fit)
    trained_anew(first)
    second = step()
    assert cluster.run("scontrol", "--oneliner", "show", "job", fit).count("Restarts=1") == 1
    # All cores of all nodes for a job of the better partition: ours has to go.
    urgent = cluster.run(
        "sbatch", "--parsable", "--partition=high", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"
    ).strip()
    cluster.wait_until(lambda: cluster.state(fit) == "PENDING", "preemption", 90)
    cluster.wait_for_states([urgent])
    cluster.start_now(fit)
    trained_anew(second)
    third = step()
    node = cluster.squeue("--jobs", fit, "--format=%N").strip()
    cluster.kill_node(node)
    try:
        cluster.start_now(fit)
        trained_anew(third)
        _, stderr = process.communicate(timeout=PATIENCE)
    finally:
        cluster.revive_node(node)
    assert process.returncode == 0, stderr
    assert len(results(rough)) == 1

    undisturbed = sweep(cluster, calm, *steps)
    assert undisturbed.returncode == 0, undisturbed.stderr
    weights = "fits/*/checkpoints/ema.safetensors"
    assert one(rough, weights).read_bytes() == one(calm, weights).read_bytes()
    assert lines(rough) == lines(calm)
    assert [result["fd_points"] for result in results(rough)] == [result["fd_points"] for result in results(calm)]


def test_a_fit_that_needs_longer_than_its_time_limit_is_queued_again(cluster: Cluster, tmp_path: Path) -> None:
    # The shortest limit there is; SLURM looks at limits every half minute or so.
    done = sweep(
        cluster,
        tmp_path,
        "training.steps=100000",
        "trainer.checkpoint_seconds=300",
        "resources.fit.time=1",
        "hydra.launcher.signal_seconds=20",
        "hydra.launcher.requeues=1",
        "sampler=ddim",
    )
    assert done.returncode == 1
    assert "came to its time limit 2 times: raise resources.fit.time" in done.stdout
    # The second time it did not begin at the start, though no checkpoint was due by the clock.
    log = Path(one(tmp_path, "sweeps/*/slurm"), f"{jobs(tmp_path)[0]['id']}_0_log.out").read_text()
    assert re.search(r"stopped at step \d+ of 100000, which is saved", log)
    assert "going on from its checkpoint" in log


def test_neither_a_new_controller_nor_a_dead_launcher_loses_anything(cluster: Cluster, tmp_path: Path) -> None:
    process = start(cluster, tmp_path, "sampler=ddim,heun", "schedule=cosine,linear", "training.steps=1500")
    wait_for(lambda: list(tmp_path.glob("sweeps/*/jobs.json")) and len(jobs(tmp_path)) == 5, "the jobs")
    wait_for(lambda: list(tmp_path.glob("fits/*/status.json")), "a training")
    process.kill()
    process.communicate()
    shown = diffsweep(cluster, tmp_path, "status", "last").stdout
    assert "SLURM" in shown
    with cluster.controller_down():
        unknown = diffsweep(cluster, tmp_path, "status", "last")
        assert unknown.returncode == 0, unknown.stderr
    cluster.wait_until(lambda: not cluster.squeue(), "the sweep's own end", PATIENCE)
    assert len(results(tmp_path)) == 4
    # Nobody waited for it, and yet there is a table.
    assert one(tmp_path, "sweeps/*/table.csv").read_text().count("\n") == 5
    before = accounts(cluster)
    resumed = diffsweep(cluster, tmp_path, "resume", "last")
    assert resumed.returncode == 0, resumed.stderr
    assert "4 runs of 2 trainings" in resumed.stdout
    assert accounts(cluster) == before


def test_a_cancelled_sweep_leaves_no_job_and_goes_on_when_resumed(cluster: Cluster, tmp_path: Path) -> None:
    done = sweep(
        cluster,
        tmp_path,
        "sampler=ddim,heun",
        "training.steps=3000",
        "trainer.checkpoint_seconds=0.5",
        "hydra.launcher.detach=true",
    )
    assert done.returncode == 0, done.stderr
    assert "diffsweep status" in done.stderr
    assert not results(tmp_path)
    wait_for(lambda: list(tmp_path.glob("fits/*/checkpoints/last.ckpt")), "a checkpoint")
    cancelled = diffsweep(cluster, tmp_path, "cancel", "last")
    assert cancelled.returncode == 0, cancelled.stderr
    assert not cluster.squeue()
    assert "diffsweep resume" in cancelled.stdout
    resumed = diffsweep(cluster, tmp_path, "resume", "last")
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
        (root / "src" / "diffsweep" / "training" / "stages.py").write_text("raise SystemExit('the edited package')\n")
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
    both = [start(cluster, runs, *own, *common, cwd=tmp_path) for own in axes]
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
