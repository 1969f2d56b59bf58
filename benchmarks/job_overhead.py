"""What a SLURM job of ours costs before it does anything: from its start to the first network evaluation of its cell.

    python benchmarks/job_overhead.py

Beside it `import torch` alone, in a job of the same cluster (four virtual nodes, started for it). What is between them:
srun, submitit, reading the plan, importing Lightning and the rest, building the run, loading weights and data.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from slurm import Cluster  # noqa: E402  # pyright: ignore[reportMissingImports]

# A solver of the user's that notes when it first asks the network.
CLOCK = """
import os, time
from diffsweep.diffusion.solvers import Euler

class Clock:
    order = 1
    nfe = staticmethod(lambda steps: steps)
    plan = staticmethod(lambda legs, schedule: None)
    def aim(self, denoise, x, t, s, memory):
        # One number is only the check that the sampler suits the schedule.
        if len(x) > 1:
            with open(os.environ["CLOCK"], "a") as file:
                file.write(f"{time.time()}\\n")
        return denoise(x, t), None
"""
TINY = ["dataset=digits", "trainer=debug", "trainer.threads=1", "sampler=ddim", "sampler.solver._target_=clock.Clock"]


def ours(cluster: Cluster, folder: Path, number: int) -> float:
    """Seconds from the start of the batch script of a job of one cell to its first network evaluation."""
    begun, asked = folder / f"begun-{number}", folder / f"asked-{number}"
    setup = f"resources.cells.setup=['date +%s.%N > {begun}','export CLOCK={asked}']"
    subprocess.run(
        [
            sys.executable,
            str(ROOT / "train.py"),
            "-m",
            "hydra/launcher=slurm",
            "hydra.launcher.poll_seconds=1",
            "resources.finish.memory=200MB",
            f"paths.runs={folder / 'runs'}",
            f"evaluation.seed={number}",
            setup,
            *TINY,
        ],
        env=cluster.env | {"OMP_NUM_THREADS": "1", "CLOCK": "/dev/null"},
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return float(asked.read_text().split()[0]) - float(begun.read_text())


def bare(cluster: Cluster, folder: Path, number: int) -> float:
    """Seconds from the start of a batch script to the end of `import torch` in a task of it."""
    begun, done = folder / f"bare-{number}", folder / f"torch-{number}"
    code = f"import torch, time; open({str(done)!r}, 'w').write(str(time.time()))"
    script = f'date +%s.%N > {begun}; srun {sys.executable} -c "{code}"'
    cluster.run("sbatch", "--wait", "--output=/dev/null", f"--wrap={script}", timeout=300)
    return float(done.read_text()) - float(begun.read_text())


def main() -> None:
    """Both, alternating."""
    with tempfile.TemporaryDirectory() as name, Cluster() as cluster:
        folder = Path(name)
        (folder / "clock.py").write_text(CLOCK)
        rows: dict[str, list[float]] = {"ours": [], "import torch": []}
        for number in range(4):
            rows["ours"].append(ours(cluster, folder, number))
            rows["import torch"].append(bare(cluster, folder, number))
            cluster.wait_until(lambda: not cluster.squeue(), "an empty queue")
            time.sleep(1)
        # The first of each pays for a cold disk, and ours for the training.
        for side, seconds in rows.items():
            print(json.dumps({"side": side, "seconds": [round(value, 2) for value in seconds]}))
        print(f"difference of medians: {median(rows['ours'][1:]) - median(rows['import torch'][1:]):.2f} s")


if __name__ == "__main__":
    main()
