"""What it costs to compose and sign the cells of a sweep, beside composing them with Hydra alone; one core, no torch.

    python benchmarks/plan_speed.py                 # 10,000 cells, a minute
    python benchmarks/plan_speed.py --cells 1000

Three sweeps: a typical grid (samplers x schedules x network calls x seeds), one whose only axis is the seed, and the
worst case, in which every cell has its own choice of options, so that Hydra composes each of them.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import islice, product
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

CONF = Path(__file__).parent.parent / "conf"
SAMPLERS = ("ddim", "ddpm", "deis", "dpmpp_2m", "dpmpp_3m", "euler", "heun", "ipndm", "lms", "unipc")
SCHEDULES = ("cosine", "karras", "linear", "ve", "vp")
ALONE = 30

# Composed one by one by Hydra in the worst case, so that many of them are measured on fewer.
WORST = 150


def typical(cells: int) -> list[tuple[str, ...]]:
    seeds = [f"evaluation.seed={i}" for i in range(max(1, cells // (len(SAMPLERS) * len(SCHEDULES) * 10)))]
    samplers = [f"sampler={name}" for name in SAMPLERS]
    schedules = [f"schedule={name}" for name in SCHEDULES]
    return list(product(samplers, schedules, [f"sampler.nfe={5 * i + 5}" for i in range(10)], seeds))


def seeds(cells: int) -> list[tuple[str, ...]]:
    return [("paths.runs=elsewhere", f"seed={i}") for i in range(cells)]


def worst(cells: int) -> list[tuple[str, ...]]:
    groups = ("sampler", "schedule", "optimizer", "guidance")
    names = [[f"{group}={path.stem}" for path in sorted((CONF / group).glob("*.yaml"))] for group in groups]
    return list(islice(product(*names), min(cells, WORST)))


SWEEPS = {"typical": typical, "seeds": seeds, "worst": worst}


def measured(name: str, who: str, cells: int) -> str:
    """One line, measured in this process: its peak memory is that of nothing else."""
    from diffsweep.sweep.plan.compose import compose
    from diffsweep.sweep.store.signature import Signer

    batch: Sequence[Sequence[str]] = SWEEPS[name](cells)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", [], run_mode=RunMode.MULTIRUN)
        before, wall = time.process_time(), time.perf_counter()
        if who == "hydra":
            batch = batch[:: max(1, len(batch) // ALONE)][:ALONE]
            for cell in batch:
                OmegaConf.to_container(loader.load_sweep_config(master, list(cell)).hydra.runtime.choices)
            fits = ""
        else:
            signer = Signer()
            kept = [(cell, signer.sign(cell.config)) for cell in compose(loader, master, batch)]
            fits = (
                f", {len({fit for _, (fit, _) in kept})} trainings, {len({cell for _, (_, cell) in kept})} evaluations"
            )
        cpu, wall = time.process_time() - before, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    each = 1000 * cpu / len(batch)
    costs = f"{cpu:7.2f} CPU s {wall:7.2f} s {each:8.3f} ms/cell {peak:5.0f} MB"
    return f"{name:8} {who:6} {len(batch):6} cells {costs}{fits}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, who = arguments.one
        print(measured(name, who, arguments.cells), flush=True)
        return
    for name, who in product(SWEEPS, ("ours", "hydra")):
        subprocess.run([sys.executable, __file__, "--cells", str(arguments.cells), "--one", name, who], check=True)


if __name__ == "__main__":
    main()
