"""What `diffsweep status SWEEP` costs with 10,000 and 100,000 recorded cells: `python benchmarks/status_speed.py`.

The records are generated with the keys of real ones, in a temporary folder. First comes the whole command in a process
of its own, interpreter and imports included, by the clock and in seconds of CPU; then a further look of a process that
has looked before, as the live view takes it every second.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from diffsweep.sweep.plan.jobs import Job, LaunchRecord
from diffsweep.sweep.plan.plan import Plan, SignedConfig
from diffsweep.sweep.status.monitor import Monitor
from diffsweep.sweep.store.process import Process
from diffsweep.sweep.store.provenance import provenance

COMMAND = "import sys; from pathlib import Path; from diffsweep.report.status import status; {}"
GROUPS = ("diffuser", "sampler", "schedule", "backbone", "dataset", "guidance", "evaluation", "trainer", "training")


def signed(cells: int, cells_per_fit: int) -> Iterator[SignedConfig]:
    part = {"_target_": "some.module.Name", "numbers": list(range(12)), "option": "value", "seed": 0}
    shared = dict.fromkeys([*GROUPS, "optimizer", "ema", "paths", "logger", "seed"], part)
    choices: dict[str, str | None] = dict.fromkeys(GROUPS, "option")
    for index in range(cells):
        fit = index // cells_per_fit
        words = [f"training.steps={1000 + fit}", f"sampler.nfe={index % cells_per_fit + 1}", "schedule=cosine"]
        yield SignedConfig(words, shared, choices, f"{fit:012x}", f"{index:012x}")


def generate(runs: Path, cells: int, cells_per_fit: int, finished: float) -> Plan:
    plan = Plan(runs / "sweeps" / "big", runs).with_tasks(signed(cells, cells_per_fit))
    result = {
        "overrides": "training.steps=1000 sampler.nfe=20 schedule=cosine",
        **dict.fromkeys(GROUPS, "option"),
        "metric": "fd_digits",
        **dict.fromkeys(("fd_digits", "fd_digits_floor", "sample_seconds", "evaluate_seconds", "fit_seconds"), 0.5),
        **dict.fromkeys(("samples", "reference_samples", "floor_samples", "nfe", "steps", "parameters", "seed"), 1000),
        **provenance(),
        "status": "done",
    }
    # Not through atomic writes, whose 200,000 fsyncs would take an hour.
    done = json.dumps({"steps": 1000, "seconds": 60.0, "loss": 0.1, **provenance(), "status": "done"}, indent=2)
    text = json.dumps(result, indent=2)
    for cell in list(plan.cells)[: round(cells * finished)]:
        run = plan.run(cell)
        if not run.fit.folder.exists():
            run.fit.folder.mkdir(parents=True)
            run.fit.done_file.write_text(done)
        run.cell.folder.mkdir(parents=True)
        run.cell.result_file.write_text(text)
    plan.write()
    jobs = [Job("fit", fit, tuple(cells)) for fit, cells in plan.fits.items()]
    jobs += [Job("cells", fit, tuple(cells)) for fit, cells in plan.fits.items()]
    LaunchRecord("local", tuple(jobs), None if finished == 1 else Process.current(), finished == 1).write(plan.folder)
    return plan


def children() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def measure(cells: int, cells_per_fit: int, finished: float, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        plan = generate(runs, cells, cells_per_fit, finished)
        code = COMMAND.format(f"status(Path({folder!r}), 'big', False)")
        whole, again = [], []
        cpu = children()
        for _ in range(rounds):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
            whole.append(time.perf_counter() - started)
        cpu = (children() - cpu) / rounds
        watch = Monitor(plan)
        watch.read()
        for _ in range(rounds):
            started = time.perf_counter()
            watch.read()
            again.append(time.perf_counter() - started)
        print(
            f"{cells:7,} cells of {len(plan.fits):6,} fits, {finished:4.0%} done: "
            f"command {statistics.median(whole):.2f} s ({cpu:.2f} s of CPU), "
            f"a further look {1000 * statistics.median(again):.0f} ms",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    for cells in asked.cells:
        measure(cells, 50, 1.0, asked.rounds)
        measure(cells, 50, 0.5, asked.rounds)
        measure(cells, 1, 1.0, asked.rounds)
        measure(cells, 1, 0.0, asked.rounds)


if __name__ == "__main__":
    main()
