"""Fits the noise levels of ``sampler/spacing=optimal`` and writes its YAML.

Six mixtures of two to four Gaussians on a line, 101 quantiles each, and UniPC-2; none of them is used in
``solver_accuracy.py``, which tells how well the levels serve others.

    python benchmarks/fit_spacing.py        # about 10 minutes on one core
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from diffsweep.diffusion import GaussianMixture, Level, Sampler
from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.fitting import fit_spacing
from diffsweep.diffusion.schedules import VE
from diffsweep.diffusion.solvers import UniPC
from diffsweep.diffusion.spacing import LogSNR

TARGET = Path(__file__).parent.parent / "conf/sampler/spacing/optimal.yaml"
HEADER = """\
# Levels fitted for UniPC-2 at 4 to 50 steps (benchmarks/fit_spacing.py; the idea of arXiv 2404.14507): for few steps
# on data of root mean square about 0.6; other multistep methods gain from them up to 7 steps or so.
"""
# Steps, and the last noise of the levels from which the search starts.
FITS = ((4, 0.05), (5, 0.05), (7, 0.05), (10, 0.02), (14, 0.01), (20, 0.01), (50, 0.003))


def mixtures(number: int = 6, seed: int = 1) -> list[GaussianMixture]:
    g = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(number):
        k = int(torch.randint(2, 5, (1,), generator=g))
        means, weights, stds = (torch.rand(k, generator=g, dtype=torch.float64) for _ in range(3))
        found.append(
            GaussianMixture((weights + 0.3) / (weights + 0.3).sum(), 2 * means[:, None] - 1, 0.08 + 0.3 * stds)
        )
    return found


def main() -> None:
    torch.set_num_threads(1)
    parts = mixtures()
    quantiles = torch.special.ndtri((torch.arange(101, dtype=torch.float64) + 0.5) / 101)[:, None]

    def denoise(x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
        return torch.cat([part(rows, level) for part, rows in zip(parts, x.chunk(len(parts)), strict=True)])

    lines = []
    for steps, last in FITS:
        sampler = Sampler(UniPC(2), LogSNR(noise_min=last), steps)
        noise = quantiles.repeat(len(parts), 1)
        rounds = 30 if steps <= 20 else 12
        spacing, before, after = fit_spacing(sampler, denoise, noise, schedule=VE(1e-4, 80.0), rounds=rounds)
        print(f"{steps} steps: distance {before:.5f} -> {after:.5f}", flush=True)
        lines.append("  - [" + ", ".join(f"{noise:.4g}" for noise in spacing.noises) + "]\n")
    TARGET.write_text(HEADER + "_target_: diffsweep.diffusion.spacing.Optimal\ntables:\n" + "".join(lines))


if __name__ == "__main__":
    main()
