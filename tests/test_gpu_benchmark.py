"""benchmarks/gpu.py at toy size on a CPU: every part runs to its end, leaves a file, and goes on where it stopped."""

from __future__ import annotations

import json
import math
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import forked_runs

ROOT = Path(__file__).parent.parent
PATIENCE = 300.0
PARTS = ("step-toy", "memory-toy", "sampling-toy", "sharing-2", "quality-digits-0.02-diffsweep")


def benchmark(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [str(ROOT / "benchmarks" / "gpu.py"), *words]
    return forked_runs.run(arguments, folder, environment, PATIENCE)


def numbers(values: object) -> list[float]:
    if isinstance(values, dict):
        return [x for one in values.values() for x in numbers(one)]
    return [float(values)] if isinstance(values, (int, float)) else []


@pytest.mark.slow
def test_all_parts_run_on_a_cpu_and_none_is_done_twice(tmp_path: Path) -> None:
    words = ("--toy", "--out", "figures")
    # Stopped at once, its training is left for the next run.
    first = benchmark(tmp_path, *words, "quality", "--seconds", "1")
    assert first.returncode == 75, first.stderr
    assert "something is left: the same command goes on" in first.stdout
    assert not (tmp_path / "figures" / f"{PARTS[-1]}.json").exists()
    planned = json.loads((tmp_path / "figures" / "steps-digits-0.02.json").read_text())["steps"]

    done = benchmark(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    files = {name: tmp_path / "figures" / f"{name}.json" for name in PARTS}
    found = {name: json.loads(path.read_text()) for name, path in files.items()}
    for name, values in found.items():
        assert {"device", "torch", "date"} <= values.keys(), name
        assert numbers(values), name
        assert all(math.isfinite(x) for x in numbers(values)), name
    assert found["step-toy"]["bare_share"] > 0
    assert set(found["sampling-toy"]["samplers"]) == {"ddim", "dpmpp_2m"}
    assert found["sharing-2"]["jobs"] == 2
    assert found["quality-digits-0.02-diffsweep"]["steps"] == planned
    assert found["memory-toy"]["estimate_bytes"] > 1e5
    assert ("smalldiffusion is left out" in done.stdout) == (find_spec("smalldiffusion") is None)
    for part in ("step", "memory", "sampling", "sharing", "quality"):
        assert f"| {part} |" in done.stdout

    before = {name: path.stat().st_mtime_ns for name, path in files.items()}
    files["memory-toy"].unlink()
    again = benchmark(tmp_path, *words)
    assert again.returncode == 0, again.stderr
    after = {name: path.stat().st_mtime_ns for name, path in files.items()}
    assert [name for name in PARTS if before[name] != after[name]] == ["memory-toy"]
    report = benchmark(tmp_path, "--report", "--out", "figures")
    assert "| memory |" in report.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_it_measures_nothing_without_a_gpu(tmp_path: Path) -> None:
    for words, message in (
        (["step"], "there is no GPU here: --toy shows that everything runs"),
        (["stpe"], "there is no part stpe: choose of step, memory, sampling, sharing, quality"),
    ):
        done = benchmark(tmp_path, *words)
        assert done.returncode == 2
        assert message in done.stderr
    assert list(tmp_path.iterdir()) == []
