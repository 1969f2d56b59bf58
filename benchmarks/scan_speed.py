"""What `diffsweep results` costs with 10,000 and 100,000 recorded cells: `python benchmarks/scan_speed.py RESULT.json`.

The records are copies of one real result.json with other names, choices and numbers, ten cells a fit, in a temporary
folder (or in --folder). The first call finds no copy of the records yet; later ones do. Each is the whole command, with
the start of Python, in wall and in CPU seconds (a busy machine shows in the first only). Written to scan_speed.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CACHE = "cache/results.json"
SIZES = (10_000, 100_000)
Cost = dict[str, float]
COMMANDS = {
    "table": ["results"],
    "filtered table": ["results", "sampler=heun", "nfe<20"],
    "csv": ["results", "--format", "csv"],
    "json": ["results", "--format", "json"],
    "gc": ["gc"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path, help="a result.json of a real run")
    parser.add_argument("--folder", type=Path, help="where to put the records (default: the system's)")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    measured: dict[str, Any] = {}
    for cells in asked.sizes:
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            generate(json.loads(asked.result.read_text()), cells, folder)
            found: dict[str, Any] = {"table, first time": median([seconds(COMMANDS["table"], folder)])}
            for name, words in COMMANDS.items():
                found[name] = median([seconds(words, folder) for _ in range(asked.repeats)])
            found["copy, megabytes"] = copy.stat().st_size / 1e6 if (copy := Path(folder, CACHE)).exists() else None
        measured[f"{cells:,} cells"] = found
        print(cells, json.dumps(found))
    start = median([seconds(None, ".") for _ in range(asked.repeats)])
    megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    machine = {
        "cores": os.cpu_count(),
        "load average": round(os.getloadavg()[0], 1),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    report = {"seconds": measured, "python's start": start, "most memory, MiB": megabytes, **machine}
    Path(__file__).with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")


def generate(real: dict[str, Any], cells: int, runs: str) -> None:
    rng = random.Random(0)
    for _ in range(cells // 10):
        fit = f"{rng.getrandbits(48):012x}"
        for _ in range(10):
            cell = f"{rng.getrandbits(48):012x}"
            folder = Path(runs, "fits", fit, "cells", cell)
            folder.mkdir(parents=True)
            chosen = {"sampler": rng.choice(["ddim", "heun", "dpmpp_2m"]), "nfe": rng.choice([5, 10, 20])}
            times = {key: rng.random() for key in ("fit_seconds", "sample_seconds", "evaluate_seconds")}
            # No two real records have these in common.
            blocks = {key: _blocks(rng) for key in real if key.endswith("_jackknife")}
            changed = {"cell": cell, "fit": fit, real["metric"]: rng.random(), **chosen, **times, **blocks}
            (folder / "result.json").write_text(json.dumps(real | changed, indent=2) + "\n")
        Path(runs, "fits", fit, "done.json").write_text(json.dumps({"fit": fit, "status": "done"}))


def _blocks(rng: random.Random) -> str:
    return " ".join(f"{rng.random():.9g}" for _ in range(20))


def seconds(words: list[str] | None, runs: str) -> Cost:
    """Wall and CPU seconds of one command, of Python doing nothing for None."""
    command = ["-c", "pass"] if words is None else ["-m", "diffsweep", *words, "--runs", runs]
    before, started = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall": wall, "cpu": cpu}


def median(costs: list[Cost]) -> Cost:
    return {key: round(statistics.median(cost[key] for cost in costs), 3) for key in costs[0]}


if __name__ == "__main__":
    main()
