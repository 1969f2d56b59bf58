"""The cluster that other tests trust: it does what SLURM does elsewhere, and it is gone afterwards."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import processes
from slurm import NODES, Cluster, missing


@pytest.fixture(autouse=True)
def _no_jobs_left(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.clear()


def submit(cluster: Cluster, script: str, *options: str) -> str:
    return cluster.run("sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={script}").strip()


def until(path: Path) -> str:
    """A script that ends when there is such a file."""
    return f"until [ -e {path} ]; do sleep 0.1; done"


def mentioning(folder: str) -> list[str]:
    """Every living process that has to do with the cluster in `folder`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            text = [*process.cmdline(), *process.environ().values(), *(file.path for file in process.open_files())]
            if process.status() != psutil.STATUS_ZOMBIE and any(folder in part for part in text):
                found.append(f"{process.pid} {process.cmdline()}")
    return found


def test_two_jobs_on_one_node_get_a_gpu_each(cluster: Cluster, tmp_path: Path) -> None:
    both = f"while [ $(ls {tmp_path} | wc -l) -lt 2 ]; do sleep 0.1; done"
    script = f"echo $CUDA_VISIBLE_DEVICES > {tmp_path}/$SLURM_JOB_ID; {both}"
    jobs = [submit(cluster, script, "--gres=gpu:1", "--nodelist=gpu2") for _ in range(2)]
    cluster.wait_for_states(jobs)
    assert {(tmp_path / job).read_text().strip() for job in jobs} == {"0", "1"}


def test_accounting_knows_how_a_job_ended(cluster: Cluster) -> None:
    job = submit(cluster, "exit 3")

    def told() -> bool:
        return cluster.sacct("--jobs", job, "--allocations", "--format=State,ExitCode").strip() == "FAILED|3:0"

    cluster.wait_until(told, "sacct to say FAILED|3:0")


def test_accounting_can_be_missing(cluster: Cluster) -> None:
    assert subprocess.run(["sacct"], env=cluster.without_sacct(), capture_output=True, check=False).returncode == 1
    assert subprocess.run(["squeue"], env=cluster.without_sacct(), capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_a_job_of_high_priority_takes_the_place_of_a_normal_one_which_starts_again_later(
    cluster: Cluster, tmp_path: Path
) -> None:
    low = submit(cluster, "sleep 600", "--requeue", "--nodes=4", "--exclusive")
    cluster.wait_for_states([low], "RUNNING")
    high = submit(cluster, until(tmp_path / "go"), "--partition=high", "--nodelist=gpu1", "--exclusive")
    cluster.wait_for_states({low: "PENDING", high: "RUNNING"})
    (tmp_path / "go").touch()
    cluster.wait_for_states({high: "COMPLETED", low: "RUNNING"})


@pytest.mark.slow
def test_a_job_on_a_node_that_dies_starts_again_on_another(cluster: Cluster, tmp_path: Path) -> None:
    script = f"echo $SLURMD_NODENAME >> {tmp_path}/nodes; test $SLURMD_NODENAME = gpu4 || sleep 600"
    job = submit(cluster, script, "--requeue", "--exclude=gpu1,gpu2")
    nodes = tmp_path / "nodes"
    cluster.wait_until(lambda: nodes.exists() and nodes.read_text() == "gpu3\n", "the job to start on gpu3")
    cluster.kill_node("gpu3")
    try:
        cluster.wait_for_states([job])
        assert (tmp_path / "nodes").read_text() == "gpu3\ngpu4\n"
    finally:
        cluster.revive_node("gpu3")
    cluster.wait_for_states([submit(cluster, "true", "--nodelist=gpu3")])


@pytest.mark.slow
def test_a_restarted_controller_still_knows_its_jobs(cluster: Cluster, tmp_path: Path) -> None:
    running = submit(cluster, until(tmp_path / "go"))
    waiting = submit(cluster, "true", f"--dependency=afterok:{running}")
    cluster.wait_for_states([running], "RUNNING")
    cluster.restart_controller()
    cluster.wait_for_states({running: "RUNNING", waiting: "PENDING"})
    (tmp_path / "go").touch()
    cluster.wait_for_states([running, waiting])


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_nothing_is_left_of_a_cluster_whose_holder_is_killed(cluster: Cluster, how: signal.Signals) -> None:
    del cluster
    holder = subprocess.Popen(
        processes.command("hold_cluster"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    folder = processes.line(holder)
    assert len(mentioning(folder)) > 4 + len(NODES)
    holder.send_signal(how)
    holder.communicate()
    end = time.monotonic() + 120
    while (left := mentioning(folder)) and time.monotonic() < end:
        time.sleep(0.1)
    assert left == []
    assert not Path(folder).exists()


def test_a_cluster_that_does_not_come_up_shows_the_logs(cluster: Cluster) -> None:
    del cluster
    with pytest.raises(RuntimeError, match=r"(?s)slurmctld does not come up.*slurmctld.out.*select/Invalid"):
        Cluster(options={"SelectType": "select/Invalid"}).__enter__()


def test_the_reason_for_no_cluster_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slurm._PATH", "/nonexistent")
    assert "apt-get install slurm-wlm" in (missing() or "")
    monkeypatch.undo()
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "root" in (missing() or "")
