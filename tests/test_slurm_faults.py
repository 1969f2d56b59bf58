"""Jobs on a real SLURM cluster that fail, die, run out of time and of memory, and what is left of their sweep."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import brake
import forked_runs
from processes import PROGRAMS
from slurm import Cluster, need_slurm
from slurm_sweeps import (
    PATIENCE,
    ROOT,
    alone,
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


def test_what_fails_costs_only_itself_and_says_why(tmp_path: Path) -> None:
    """A cell that raises, one that is killed, one that eats all memory; and a fit that diverges."""
    need_slurm()
    shutil.copy(PROGRAMS / "mine.py", tmp_path)
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
            "sampler.solver._target_=mine.Good,mine.Raise,mine.Kill,mine.Hungry",
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
        assert "mine.Good" in result["overrides"]
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
        (tmp_path / "mine.py").write_text((PROGRAMS / "mine.py").read_text().replace("len(x) == 64", "False"))
        again = diffsweep(cluster, runs, "resume", "last")
        assert again.returncode == 1
        repaired = [result["overrides"].split("mine.")[1].split()[0] for result in results(runs)]
        assert sorted(repaired) == ["Good", "Hungry", "Kill", "Raise"]
        assert len(list(runs.glob("fits/*/done.json"))) == 1


def test_a_disturbed_fit_ends_with_the_bits_of_an_undisturbed_one(cluster: Cluster, tmp_path: Path) -> None:
    """Requeued by hand, preempted, and hit by the death of its node: it goes on from its checkpoint each time."""
    steps = ("training.steps=1200", "trainer.checkpoint_seconds=0.3", "sampler=ddim", brake.LOSS)
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    pace = brake.environment(tmp_path / "brake")
    (tmp_path / "brake").touch()
    process = start(cluster, rough, *steps, env=pace)
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
    cluster.start_now(fit, 1)
    trained_anew(first)
    second = step()
    assert cluster.run("scontrol", "--oneliner", "show", "job", fit).count("Restarts=1") == 1
    # All cores of all nodes for a job of the better partition: ours has to go.
    urgent = cluster.run(
        "sbatch", "--parsable", "--partition=high", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"
    ).strip()
    cluster.wait_for_states([urgent])
    cluster.start_now(fit, 2)
    trained_anew(second)
    third = step()
    node = cluster.squeue("--jobs", fit, "--format=%N").strip()
    cluster.kill_node(node)
    try:
        cluster.start_now(fit, 3)
        trained_anew(third)
        (tmp_path / "brake").unlink()
        _, stderr = process.communicate(timeout=PATIENCE)
    finally:
        cluster.revive_node(node)
    assert process.returncode == 0, stderr
    assert len(results(rough)) == 1

    # On no cluster at all.
    undisturbed = forked_runs.run(alone(calm, *steps), ROOT, environment(cluster) | pace, PATIENCE)
    assert undisturbed.returncode == 0, undisturbed.stderr
    weights = "fits/*/checkpoints/ema.safetensors"
    assert one(rough, weights).read_bytes() == one(calm, weights).read_bytes()
    assert lines(rough) == lines(calm)
    assert [result["w2_points"] for result in results(rough)] == [result["w2_points"] for result in results(calm)]


def test_a_fit_that_needs_longer_than_its_time_limit_is_queued_again(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "brake").touch()
    process = start(
        cluster,
        tmp_path,
        brake.LOSS,
        "training.steps=100000",
        "trainer.checkpoint_seconds=10000",
        "resources.fit.time=10",
        "hydra.launcher.signal_seconds=100",
        "hydra.launcher.requeues=1",
        "sampler=ddim",
        env=brake.environment(tmp_path / "brake"),
    )
    wait_for(lambda: list(tmp_path.glob("sweeps/*/jobs.json")) and len(jobs(tmp_path)) == 3, "the jobs")
    fit = next(job["id"] for job in jobs(tmp_path) if job["kind"] == "fit")

    def lines() -> int:
        return sum(path.read_text().count("\n") for path in tmp_path.glob("fits/*/metrics.jsonl"))

    for again in (False, True):
        before = lines()
        wait_for(lambda before=before: lines() > before, "steps")
        cluster.warn(fit)
        if not again:
            cluster.start_now(fit, 1, minutes=10)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, stderr
    assert "came to its time limit 2 times: raise resources.fit.time" in stdout
    # The second time it did not begin at the start, though no checkpoint was due by the clock.
    log = Path(one(tmp_path, "sweeps/*/slurm"), f"{jobs(tmp_path)[0]['id']}_0_log.out").read_text()
    assert re.search(r"stopped at step \d+ of 100000, which is saved", log)
    assert "going on from its checkpoint" in log
