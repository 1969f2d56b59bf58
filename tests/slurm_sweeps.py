"""Sweeps on a SLURM cluster as tests start them, and what they leave."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import forked_runs
import tiny
from slurm import Cluster

ROOT = Path(__file__).parent.parent
TINY = [
    *tiny.TINY,
    "training.steps=40",
    "resources.finish.memory=400MB",
    "hydra/launcher=slurm",
    "hydra.launcher.poll_seconds=1",
]
# Seconds that a step may take on a machine that is busy with other things; on an idle one none takes a minute.
PATIENCE = 600


def environment(cluster: Cluster) -> dict[str, str]:
    return {**cluster.env, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}


def arguments(runs: Path, *overrides: str, root: Path = ROOT) -> list[str]:
    return [str(root / "train.py"), "-m", *TINY, f"paths.runs={runs}", *overrides]


def alone(runs: Path, *overrides: str) -> list[str]:
    """The arguments of Python for the same as one run of this machine."""
    here = [word for word in TINY if not word.startswith("hydra")]
    return [str(ROOT / "train.py"), *here, f"paths.runs={runs}", *overrides]


def sweep(
    cluster: Cluster, runs: Path, *overrides: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return forked_runs.run(arguments(runs, *overrides), cwd, environment(cluster) | dict(env or {}), PATIENCE)


def start(
    cluster: Cluster, runs: Path, *overrides: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> forked_runs.Run:
    return forked_runs.Run(arguments(runs, *overrides), cwd, environment(cluster) | dict(env or {}))


def diffsweep(
    cluster: Cluster, runs: Path, *words: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    words = "-m", "diffsweep", words[0], "--runs", str(runs), *words[1:]
    return forked_runs.run(words, Path.cwd(), environment(cluster) | dict(env or {}), PATIENCE)


def jobs(runs: Path) -> list[dict[str, Any]]:
    """What jobs.json says of the newest sweep."""
    newest = max(runs.glob("sweeps/*/jobs.json"), key=lambda path: path.stat().st_mtime_ns)
    return json.loads(newest.read_text())["jobs"]


def results(runs: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(runs.glob("fits/*/cells/*/result.json"))]


def accounts(cluster: Cluster) -> set[str]:
    return set(cluster.sacct("--allocations", "--format=JobID").split())


def latest(cluster: Cluster) -> int:
    """The number of the job that was submitted last, as the controller knows it at once."""
    return max(map(int, cluster.run("squeue", "--states=all", "--noheader", "--format=%A").split()))


def wait_for(true: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
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
