"""Finished runs that were never trained: records with numbers, intervals and pictures of a known making."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffsweep.evaluation.pictures import grid
from diffsweep.sweep.store.record import Fit
from diffsweep.sweep.store.result import Result

SAMPLERS = ("ddim", "heun", "dpmpp_2m", "unipc", "deis", "euler")
SCHEDULES = ("cosine", "linear", "sigmoid")
NFES = (5, 10, 20, 50)
BLOCKS = 20

# What each choice adds to the distance.
WORTH = {"ddim": 0.3, "heun": 0.2, "dpmpp_2m": 0.0, "unipc": 0.05, "deis": 0.1, "euler": 0.4}
WORTH |= {"cosine": 0.0, "linear": 0.5, "sigmoid": 0.25}


def made(runs: Path, cells: int = 24, *, pictures: bool = True, **changes: Any) -> list[dict[str, Any]]:
    """Write `cells` finished cells below the folder `runs` and return their flat results; `changes` go into each."""
    draw = np.random.default_rng(0)
    # What chance does to the samples is common to all cells, but for a little.
    common = draw.standard_normal(BLOCKS) * 0.004
    results = []
    choices = itertools.islice(itertools.product(range(1000), SCHEDULES, SAMPLERS, NFES), cells)
    for i, (seed, schedule, sampler, nfe) in enumerate(choices):
        fit, cell = f"f{seed:03d}{SCHEDULES.index(schedule):08d}", f"{i:012d}"
        value = 1 + WORTH[sampler] + WORTH[schedule] + 2 / nfe + 0.01 * seed
        without = value + common + draw.standard_normal(BLOCKS) * 0.0005
        reach = 2.093 * float(np.sqrt((BLOCKS - 1) / BLOCKS * ((without - without.mean()) ** 2).sum()))
        result: dict[str, Any] = {
            "cell": cell,
            "fit": fit,
            "overrides": f"schedule={schedule} sampler={sampler} sampler.nfe={nfe} seed={seed}",
            "diffuser": "v",
            "sampler": sampler,
            "schedule": schedule,
            "backbone": "unet",
            "dataset": "digits",
            "guidance": "none",
            "metric": "fd_digits",
            "fd_digits": value,
            "fd_digits_low": value - reach,
            "fd_digits_high": value + reach,
            "fd_digits_floor": 0.2,
            "fd_digits_jackknife": " ".join(f"{one:.9g}" for one in without),
            "fd_digits_by": "Frechet output=features",
            "precision_digits": 1 / value,
            "precision_digits_low": 1 / value - 0.01,
            "precision_digits_high": 1 / value + 0.01,
            "precision_digits_floor": 0.9,
            "samples": 500,
            "sample_seed": 0,
            "reference_split": "train",
            "reference_samples": 1297,
            "reference_digest": "abcdefabcdef",
            "extractor": "digits",
            "extractor_digest": "0123456789ab",
            "resize": "none",
            "bits": 8,
            "nfe": nfe,
            "seed": seed,
            "fit_seconds": 80.0,
            "sample_seconds": 0.1 * nfe,
            "evaluate_seconds": 0.5,
            "grid": "samples.png",
            "git_commit": "e" * 40,
            "version_torch": "2.0",
            **changes,
        }
        record = Fit(runs / "fits" / fit).cell(cell)
        record.folder.mkdir(parents=True)
        config = {key: result[key] for key in ("sampler", "schedule", "seed")} | {"deep": {"list": [1, 2], "nfe": nfe}}
        record.write_config(config)
        record.write_result(Result.parse(result))
        if pictures:
            stream = torch.Generator().manual_seed(i)
            x = torch.randint(0, 256, (100, 1, 8, 8), dtype=torch.uint8, generator=stream)
            grid(x, record.samples_file)
        lines = "".join(f'{{"step": {step}, "loss": {1 / (step + 1 + seed)}}}\n' for step in range(0, 1500, 3))
        record.fit.metrics_file.write_text(lines)
        results.append(result)
    return results
