"""What a sampler costs beyond the network: (total - NFE x bare forward) / NFE in microseconds, one CPU thread.

A tiny network makes the loop around it visible. Every contestant samples the same batch with the same number of
evaluations, counted by the network; all take turns in one process, and the median over the rounds counts, in CPU time.
The yardstick is DDIM written by hand with its coefficients ready.

    python benchmarks/solver_overhead.py                 # about 2 minutes on a quiet machine
    python benchmarks/solver_overhead.py --only diffsweep --rounds 10
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import logging
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from solver_accuracy import CONF, HERE, PACKAGES, k_sampling
from torch import Tensor, nn

from diffsweep.diffusion import Denoiser, Sampler
from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.target import Eps

SHAPE = (4, 1, 8, 8)
YARDSTICK = "written by hand"
TARGET = 40.0

Contestant = tuple[str, str, Callable[[], Any]]


class Tiny(nn.Module):
    """A network that is hardly there, and deaf to the time, which every package gives in a shape of its own."""

    channels, out_dim, self_condition, random_or_learned_sinusoidal_cond = 1, 1, False, True

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 32), nn.SiLU(), nn.Linear(32, 8))
        # A list, for nn.Module makes setting an attribute dear.
        self.calls = [0]

    def forward(self, x: Tensor, time: Tensor | None = None, condition: Condition | None = None) -> Tensor:
        self.calls[0] += 1
        return self.layers(x)


def by_hand(network: Tiny, nfe: int) -> Iterator[Contestant]:
    squared = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    times = [round(1000 - i * 1000 / nfe) - 1 for i in range(nfe)]
    levels = [(math.sqrt(squared[t]), math.sqrt(1 - squared[t])) for t in times] + [(1.0, 0.0)]

    def run() -> Tensor:
        x = torch.randn(SHAPE)
        for i, t in enumerate(times):
            (alpha, sigma), (alpha_s, sigma_s) = levels[i], levels[i + 1]
            eps = network(x, torch.full((len(x),), t))
            x0 = (x - sigma * eps) / alpha
            x = alpha_s * x0 + sigma_s * eps
        return x

    yield YARDSTICK, "DDIM", run


def ours(network: Tiny, nfe: int) -> Iterator[Contestant]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        schedule = instantiate(compose(overrides=["+schedule=linear"]).schedule)
        denoiser = Denoiser(network, schedule, Eps())
        for path in sorted((CONF / "sampler").glob("*.yaml")):
            sampler: Sampler = instantiate(compose(overrides=[f"+sampler={path.stem}", "sampler.nfe=1000"]).sampler)
            # What a solver with error control costs follows from its tolerance.
            if path.stem != "adaptive":
                with contextlib.suppress(ValueError):
                    sampler = replace(sampler, nfe=nfe)

            def run(sampler: Sampler = sampler) -> Tensor:
                return sampler(denoiser, torch.randn(SHAPE), schedule=schedule, generator=torch.Generator())

            yield "diffsweep", path.stem, run


def diffusers(network: Tiny, nfe: int) -> Iterator[Contestant]:
    package: Any = import_module("diffusers")
    names = ["DDIM", "DDPM", "DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "DEISMultistep", "PNDM"]
    names += [f"{name}Discrete" for name in ("LMS", "Heun", "Euler", "EulerAncestral", "KDPM2")]
    for name in names:
        scheduler = getattr(package, f"{name}Scheduler")(beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
        steps = (nfe + 1) // 2 if name in ("HeunDiscrete", "KDPM2Discrete") else nfe

        def run(scheduler: Any = scheduler, steps: int = steps) -> Tensor:
            scheduler.set_timesteps(steps)
            x = torch.randn(SHAPE) * scheduler.init_noise_sigma
            for t in scheduler.timesteps:
                x = scheduler.step(network(scheduler.scale_model_input(x, t), t), t, x).prev_sample
            return x

        yield "diffusers", name, run


def k_diffusion(network: Tiny, nfe: int) -> Iterator[Contestant]:
    library = k_sampling()

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        # The least that eps needs; the package's own wrapper looks the time up as well.
        s = sigma.view(-1, 1, 1, 1)
        return x - s * network(x / (s**2 + 1).sqrt(), sigma)

    two = ("heun", "dpm_2", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde")
    one = ("euler", "euler_ancestral", "lms", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m_sde")
    for name in (*one, *two):
        steps = (nfe + 1) // 2 if name in two else nfe

        def run(name: str = name, steps: int = steps) -> Tensor:
            sigmas = library.get_sigmas_karras(steps, 0.002, 80.0)
            return getattr(library, f"sample_{name}")(model, torch.randn(SHAPE) * sigmas[0], sigmas, disable=True)

        yield "k-diffusion", name, run


def azula(network: Tiny, nfe: int) -> Iterator[Contestant]:
    samplers, noises, denoisers = (import_module(f"azula.{name}") for name in ("sample", "noise", "denoise"))
    denoiser = denoisers.KarrasDenoiser(network, noises.VPSchedule())
    for name in ("DDIM", "DDPM", "Euler", "Heun", "zAB", "vAB", "zEAB", "xEAB", "REAB"):
        steps = nfe // 2 if name == "Heun" else nfe

        def run(name: str = name, steps: int = steps) -> Tensor:
            sampler = getattr(samplers, f"{name}Sampler")(denoiser, steps=steps, silent=True)
            return sampler(sampler.init(SHAPE))

        yield "azula", name, run


def smalldiffusion(network: Tiny, nfe: int) -> Iterator[Contestant]:
    library: Any = import_module("smalldiffusion.diffusion")
    mixin: Any = import_module("smalldiffusion.model").ModelMixin

    class Model(nn.Module, mixin):
        input_dims = SHAPE[1:]

        def forward(self, x: Tensor, sigma: Tensor, cond: Tensor | None = None) -> Tensor:
            return network(x / (sigma**2 + 1).sqrt(), sigma)

    model, schedule = Model(), library.ScheduleDDPM()
    accelerator = import_module("accelerate").Accelerator(cpu=True)
    for gam in (1.0, 2.0):

        def run(gam: float = gam) -> Tensor:
            sigmas = schedule.sample_sigmas(nfe)
            *_, x = library.samples(model, sigmas, gam=gam, batchsize=SHAPE[0], accelerator=accelerator)
            return x

        yield "smalldiffusion", f"gam {gam:g}", run


def lucid(network: Tiny, nfe: int) -> Iterator[Contestant]:
    library: Any = import_module("denoising_diffusion_pytorch.denoising_diffusion_pytorch")
    elucidated: Any = import_module("denoising_diffusion_pytorch.elucidated_diffusion")
    for module in (library, elucidated):
        module.tqdm = lambda steps, **_: steps
    with mock.patch.object(Tiny, "random_or_learned_sinusoidal_cond", False):
        ddim = library.GaussianDiffusion(
            network, image_size=SHAPE[2], objective="pred_noise", beta_schedule="linear", sampling_timesteps=nfe
        )
    edm = elucidated.ElucidatedDiffusion(network, image_size=SHAPE[2], channels=1, num_sample_steps=nfe, S_churn=0)
    yield "denoising-diffusion-pytorch", "DDIM", lambda: ddim.sample(SHAPE[0])
    yield "denoising-diffusion-pytorch", "DPM++ 2M", lambda: edm.sample_using_dpmpp(SHAPE[0])
    yield "denoising-diffusion-pytorch", "Heun", lambda: edm.sample(SHAPE[0], num_sample_steps=(nfe + 1) // 2)


SOURCES: dict[str, Callable[[Tiny, int], Iterator[Contestant]]] = dict(
    zip(PACKAGES, (ours, diffusers, k_diffusion, azula, smalldiffusion, lucid), strict=True)
)


def bare(network: Tiny, nfe: int) -> float:
    """CPU seconds of so many forwards, nothing else."""
    x, t = torch.randn(SHAPE), torch.zeros(SHAPE[0])
    start = time.process_time()
    for _ in range(nfe):
        network(x, t)
    return time.process_time() - start


@torch.inference_mode()
def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    network = Tiny().eval()
    contestants = list(by_hand(network, args.nfe))
    for package in args.only:
        contestants += SOURCES[package](network, args.nfe)
    calls: list[int] = []
    first: list[float] = []
    for _, _, run in contestants:
        network.calls[0], start = 0, time.process_time()
        run()
        first.append(time.process_time() - start)
        calls.append(network.calls[0])
        for _ in range(2):
            run()
    bare(network, args.nfe * 4)
    over: list[list[float]] = [[] for _ in contestants]
    forwards: list[float] = []
    for turn in range(args.rounds):
        if sys.stderr.isatty():
            sys.stderr.write(f"\rround {turn + 1} of {args.rounds}")
        for i, (_, _, run) in enumerate(contestants):
            forward = bare(network, args.nfe) / args.nfe
            start = time.process_time()
            run()
            total = time.process_time() - start
            over[i].append(1e6 * (total / calls[i] - forward))
            forwards.append(forward)
    sys.stderr.write(f"\nbare forward {1e6 * statistics.median(forwards):.1f} us\n")
    return [
        {
            "package": package,
            "solver": solver,
            "nfe": calls[i],
            "us": round(statistics.median(over[i]), 1),
            "first_ms": round(1e3 * first[i], 1),
        }
        for i, (package, solver, _) in enumerate(contestants)
    ]


def table(records: list[dict[str, Any]]) -> str:
    rows = ["| package | solver | NFE | us per evaluation | first call, ms |", "|---|---|---|---|---|"]
    for r in records:
        late = r["package"] == "diffsweep" and r["us"] > TARGET
        us = f"**{r['us']:.0f}**" if late else f"{r['us']:.0f}"
        rows.append(f"| {r['package']} | {r['solver']} | {r['nfe']} | {us} | {r['first_ms']:.1f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(PACKAGES), choices=PACKAGES)
    parser.add_argument("--nfe", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, default=HERE / "solver_overhead.json")
    args = parser.parse_args()
    records = measure(args)
    versions = {name: importlib.metadata.version(name) for name in ("torch", *PACKAGES)}
    if len(args.only) == len(PACKAGES):
        lines = ",\n".join(json.dumps(record) for record in records)
        head = json.dumps({"versions": versions, "date": time.strftime("%Y-%m-%d"), "shape": SHAPE})
        args.out.write_text(f'{{"setting": {head},\n"records": [\n{lines}\n]}}\n')
    print(table(records))


if __name__ == "__main__":
    main()
