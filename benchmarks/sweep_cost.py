"""One sweep on SLURM, here and as one job a run: 4 samplers x 4 schedules, wall and CPU seconds.

    pip install -e '.[benchmark]'
    python benchmarks/sweep_cost.py

A real cluster of four virtual nodes is started for it, from Debian's slurm-wlm slurmdbd munge mariadb-server. The other
side is hydra-submitit-launcher, whose jobs each train and evaluate one combination, as there is nothing to tell them
that four of them share a model. CPU seconds are those of SLURM's accounts, and of the launching process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from slurm import Cluster  # noqa: E402  # pyright: ignore[reportMissingImports]

AXES = ("sampler=ddim,heun,dpmpp_2m,unipc", "schedule=cosine,linear,sigmoid,laplace")


def launch(cluster: Cluster, *overrides: str) -> tuple[float, float]:
    """Wall seconds of a sweep, and CPU seconds of its launcher and of all its jobs."""
    before, mine = _accounts(cluster), resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "-m", *AXES, *overrides],
        env=cluster.env | {"OMP_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    )
    wall = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cluster.wait_until(lambda: not cluster.squeue(), "the last job", 600)
    # Accounts trail the controller.
    time.sleep(5)
    jobs = sum(seconds for job, seconds in _accounts(cluster).items() if job not in before)
    return wall, jobs + (after.ru_utime + after.ru_stime) - (mine.ru_utime + mine.ru_stime)


def _accounts(cluster: Cluster) -> dict[str, float]:
    # Of the steps: the jobs' own rows may be empty.
    rows = [row.partition("|") for row in cluster.sacct("--format=JobID,TotalCPU").splitlines()]
    return {job: _seconds(cpu) for job, _, cpu in rows if "." in job}


def _seconds(text: str) -> float:
    days, _, rest = text.rpartition("-")
    total = 0.0
    for part in rest.split(":"):
        total = 60 * total + float(part or 0)
    return total + 86400 * float(days or 0)


def main() -> None:
    """Run both sides, once each, ours first and last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500, help="length of a training (1500)")
    parser.add_argument("--at-once", type=int, default=2, help="jobs at once on either side (2)")
    asked = parser.parse_args()
    common = ["dataset=digits", f"training.steps={asked.steps}", "trainer.threads=1"]
    rows = []
    folder = Path(tempfile.mkdtemp(prefix="sweep-cost-"))
    with Cluster() as cluster:
        for index, side in enumerate(("ours", "one by one", "ours")):
            runs = folder / str(index)
            if side == "ours":
                own = ["hydra/launcher=slurm", f"hydra.launcher.throttle={asked.at_once}", f"paths.runs={runs}"]
                own += ["hydra.launcher.poll_seconds=1", "resources.finish.memory=200MB"]
            else:
                # A folder of runs for each, else our own records would spare it three trainings of four.
                own = ["hydra/launcher=submitit_slurm", f"hydra.launcher.array_parallelism={asked.at_once}"]
                own += [
                    f"paths.runs={runs}/${{hydra:job.num}}",
                    f"hydra.sweep.dir={runs}/sweep",
                    "hydra.launcher.mem_gb=2",
                ]
                own += ["hydra.launcher.tasks_per_node=1", "hydra.launcher.cpus_per_task=1"]
            wall, cpu = launch(cluster, *common, *own)
            trained = len(list(runs.glob("**/done.json")))
            rows.append({"side": side, "wall_s": round(wall, 1), "cpu_s": round(cpu, 1), "trainings": trained})
            print(json.dumps(rows[-1]), flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    ours = [row for row in rows if row["side"] == "ours"]
    (other,) = [row for row in rows if row["side"] != "ours"]
    for key in ("wall_s", "cpu_s"):
        mean = sum(float(row[key]) for row in ours) / len(ours)
        print(f"{key}: one by one / ours = {float(other[key]) / mean:.2f}")
    print(f"{os.cpu_count()} cores, {asked.steps} steps, {asked.at_once} jobs at once")


if __name__ == "__main__":
    main()
