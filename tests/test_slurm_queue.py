"""What waits in a queue, what is refused, and jobs of sites with other settings, on a real SLURM cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurm import Cluster
from slurm_sweeps import PATIENCE, diffsweep, jobs, results, sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def queued(cluster: Cluster) -> int:
    return len(cluster.run("squeue", "--array", "--noheader", "--format=%i").split())


def test_the_same_work_is_not_submitted_twice_and_what_waits_says_why(cluster: Cluster, tmp_path: Path) -> None:
    detached = ("hydra.launcher.detach=true", "hydra.launcher.cells_per_job=1")
    cluster.scontrol("update", "nodename=gpu[1-4]", "state=drain", "reason=test")
    cluster.scontrol("update", "partitionname=normal", "state=down")
    try:
        first = sweep(cluster, tmp_path, "sampler=ddim", *detached)
        assert first.returncode == 0, first.stderr
        (fit,) = [job for job in jobs(tmp_path) if job["kind"] == "fit"]
        assert queued(cluster) == 3
        # One cell more: its job waits for the training of the first sweep.
        second = sweep(cluster, tmp_path, "sampler=ddim,heun", *detached)
        assert second.returncode == 0, second.stderr
        assert "in the queue already: 1 of 1 trainings and 1 of 2 cells, as jobs of sweep" in second.stderr
        assert queued(cluster) == 5
        (new,) = [job for job in jobs(tmp_path) if job["kind"] == "cells" and not job["sweep"]]
        assert f"afterok:{fit['id']}" in cluster.scontrol("show", "job", new["id"])
        # Nothing but its table.
        third = sweep(cluster, tmp_path, "sampler=ddim,heun", *detached)
        assert third.returncode == 0, third.stderr
        assert queued(cluster) == 6
        shown = diffsweep(cluster, tmp_path, "status", "last").stdout
        assert "its partition is down (PartitionDown): choose another partition" in shown
        assert fit["id"] in shown
        # Of the third sweep only its own job is cancelled.
        cancelled = diffsweep(cluster, tmp_path, "cancel", "last")
        assert cancelled.returncode == 0, cancelled.stderr
        assert queued(cluster) == 5
    finally:
        cluster.scontrol("update", "partitionname=normal", "state=up")
        cluster.scontrol("update", "nodename=gpu[1-4]", "state=resume")
    cluster.wait_until(lambda: not cluster.squeue(), "the end of both sweeps", PATIENCE)
    assert len(results(tmp_path)) == 2
    assert len(list(tmp_path.glob("fits/*/done.json"))) == 1
    lines = sorted(path.read_text().count("\n") for path in tmp_path.glob("sweeps/*/table.csv"))
    assert lines == [2, 3]


def test_a_sweep_that_is_refused_in_part_is_withdrawn_whole(cluster: Cluster, tmp_path: Path) -> None:
    done = sweep(cluster, tmp_path, "sampler=ddim", "resources.cells.partition=nope")
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "SLURM refuses" in line]
    assert "partition" in line
    assert "resources.cells.partition=nope" in line
    assert "partitions here: high, normal" in line
    cluster.wait_until(lambda: not cluster.squeue(), "an empty queue")
    assert not list(tmp_path.glob("sweeps/*"))


def test_jobs_get_what_they_need_where_the_site_exports_nothing(cluster: Cluster, tmp_path: Path) -> None:
    done = sweep(cluster, tmp_path, "sampler=ddim", env={"SBATCH_EXPORT": "NONE"})
    assert done.returncode == 0, done.stderr
    assert len(results(tmp_path)) == 1


def test_a_failing_line_of_the_setup_fails_the_job_with_that_line(cluster: Cluster, tmp_path: Path) -> None:
    setup = ["export FINE=1", "for i in 1 2; do", "true; done", "ls /nonexistent/$FINE", "true"]
    words = ",".join(f'"{line}"' for line in setup)
    done = sweep(cluster, tmp_path, "sampler=ddim", f"resources.fit.setup=[{words}]")
    assert done.returncode == 1, done.stderr
    assert "setup failed: ls /nonexistent/$FINE: exit code 2" in done.stderr
    logs = "".join(path.read_text() for path in tmp_path.glob("sweeps/*/slurm/*_0_log.out"))
    assert "No such file or directory" in logs
