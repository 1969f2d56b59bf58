"""Discretisation error alone: every sampler integrates the same exact denoiser, so that no network hides or adds error.

Two problems: two Gaussians in one dimension (4001 quantiles in, exact W2 out) and 32 Gaussians in 64 dimensions (root
mean square distance to the exact flow's end points, which bounds W2 from above). Peers get the denoiser in the
parametrisation they expect, run over the processes they are made for, on every grid that they offer; evaluations are
counted, not assumed, and a solver takes as many steps as fit into the budget. The best grid at each budget stands for a
solver, ours and the peers' alike.

    python benchmarks/solver_accuracy.py            # everything, about 15 minutes on one core
    python benchmarks/solver_accuracy.py --only diffsweep k-diffusion --problems 1d
    python benchmarks/solver_accuracy.py --report   # tables and plot from the JSON
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import itertools
import json
import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor

from diffsweep.diffusion import CLEAN, GaussianMixture, Level, Sampler, Schedule
from diffsweep.diffusion.noise import SDE

HERE = Path(__file__).parent
BUDGETS = (5, 10, 20, 50)
PACKAGES = ("diffsweep", "diffusers", "k-diffusion", "azula", "smalldiffusion", "denoising-diffusion-pytorch")


class Model:
    """The exact denoiser, counting its calls."""

    def __init__(self, denoise: Callable[[Tensor, Level], Tensor]) -> None:
        self.denoise = denoise
        self.calls = 0

    def __call__(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        self.calls += 1
        return self.denoise(x, Level(alpha, sigma))

    def eps(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        return (x - alpha * self(x, alpha, sigma)) / sigma


class Problem:
    """Unit noise to start from, as users do, and the error of the end points that a solver makes of it."""

    name: str
    error_name: str
    mixture: GaussianMixture
    unit: Tensor

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        """The exact denoiser."""
        raise NotImplementedError

    def error(self, x0: Tensor) -> float:
        raise NotImplementedError


class Line(Problem):
    """Two Gaussians in one dimension: the flow keeps quantiles, and W2 is the distance of sorted samples."""

    name = "1d"
    error_name = "W2"

    def __init__(self, n: int = 4001) -> None:
        # The mean is 0, as standardised data has it: else starting from pure noise were the largest error at NFE 50.
        self.mixture = GaussianMixture.of([0.5, 0.5], [[-0.55], [0.55]], [0.15, 0.25])
        p = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        self.unit = torch.special.ndtri(p)[:, None]
        self.exact = self.mixture.quantile(p, CLEAN)

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        return self.mixture(x, level)

    def error(self, x0: Tensor) -> float:
        return float((x0.double().flatten().sort().values - self.exact).square().mean().sqrt())


class Cloud(Problem):
    """32 Gaussians in 64 dimensions: the exact flow by Runge-Kutta 4 in log noise, converged (see ``convergence``)."""

    name = "64d"
    error_name = "RMS distance"
    top = 1e4
    bottom = 1e-5

    def __init__(self, n: int = 512, seed: int = 0) -> None:
        g = torch.Generator().manual_seed(seed)
        weights = torch.rand(32, generator=g, dtype=torch.float64) + 0.5
        weights = weights / weights.sum()
        means = 0.5 * torch.randn(32, 64, generator=g, dtype=torch.float64)
        stds = 0.05 + 0.25 * torch.rand(32, generator=g, dtype=torch.float64)
        self.mixture = GaussianMixture(weights, means - weights @ means, stds)
        self.unit = torch.randn(n, 64, generator=g, dtype=torch.float64)
        self.exact, self.convergence = torch.empty(0), math.nan
        for noise in (0.01, 1.0, 80.0):
            x = means[torch.arange(n) % 32] + noise * self.unit
            assert torch.allclose(self.denoise(x, Level(1.0, noise)), self.mixture(x, Level(1.0, noise)), atol=1e-9)

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        """The mixture's own formula in matrix products, a hundred times as fast for so many components."""
        alpha, sigma, m = level.alpha, level.sigma, self.mixture
        if isinstance(alpha, Tensor):
            return m(x, level)
        y = x.double()
        variance = (alpha * m.stds) ** 2 + sigma**2
        distance = y.square().sum(1, keepdim=True) - 2 * alpha * y @ m.means.T + alpha**2 * m.means.square().sum(1)
        posterior = torch.softmax(m.weights.log() - (distance / variance + 64 * variance.log()) / 2, 1)
        gain = alpha * m.stds**2 / variance
        return (posterior * (1 - alpha * gain)) @ m.means + (posterior @ gain)[:, None] * y

    def solve(self) -> None:
        """The end points, and how far they move when every step is halved."""
        coarse, self.exact = (self.flow(fine) for fine in (0.01, 0.005))
        self.convergence = float((coarse - self.exact).square().sum(1).mean().sqrt())

    def flow(self, fine: float) -> Tensor:
        """y = x / alpha from top to bottom: dy / dlog n = y - E[x0 | y], in steps of ``fine`` where it bends."""
        marks = [math.log(mark) for mark in (self.top, 60.0, 0.003, self.bottom)]
        y = self.top * self.unit
        for high, low, size in zip(marks, marks[1:], (5 * fine, fine, 5 * fine), strict=False):
            steps = math.ceil((high - low) / size)
            h = (low - high) / steps
            for i in range(steps):
                a = high + h * i
                k1 = self._slope(y, a)
                k2 = self._slope(y + h / 2 * k1, a + h / 2)
                k3 = self._slope(y + h / 2 * k2, a + h / 2)
                k4 = self._slope(y + h * k3, a + h)
                y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return y

    def _slope(self, y: Tensor, log_noise: float) -> Tensor:
        return y - self.denoise(y, Level(1.0, math.exp(log_noise)))

    def error(self, x0: Tensor) -> float:
        return float((x0.double() - self.exact).square().sum(1).mean().sqrt())


@dataclass(frozen=True)
class Entry:
    """A solver on one grid: ``run(model, problem, steps)`` gives its end points."""

    package: str
    solver: str
    process: str
    grid: str
    run: Callable[[Model, Problem, int], Tensor] = field(compare=False)
    # For an adaptive solver the cost depends on the points, so it must be counted on all of them.
    adaptive: bool = False


# ----------------------------------------------------------------------------------------------------------- diffusers


def diffusers_vp(scheduler: str, config: dict[str, Any], model: Model, problem: Problem, steps: int) -> Tensor:
    """Any of its discrete-time schedulers with eps, over linear betas; it is told the noise it integrates with."""
    package = import_module("diffusers")
    kind = getattr(package, scheduler)
    made = kind(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", **config)
    made.set_timesteps(steps)
    indexed = hasattr(made, "set_begin_index") and hasattr(made, "sigmas")
    if indexed:
        made.set_begin_index(0)
    x = problem.unit * made.init_noise_sigma
    for t in made.timesteps:
        if indexed:
            if made.step_index is None:
                made._init_step_index(t)
            sigmas = made.sigmas
            if hasattr(made, "state_in_first_order") and hasattr(made, "sigmas_interpol"):
                sigmas = made.sigmas if made.state_in_first_order else made.sigmas_interpol
            noise = float(sigmas[made.step_index])
        else:
            squared = float(made.alphas_cumprod[int(t)])
            noise = math.sqrt((1 - squared) / squared)
        alpha = 1 / math.sqrt(1 + noise**2)
        scaled = made.scale_model_input(x, t)
        out = model.eps(scaled, alpha, alpha * noise)
        x = made.step(out, t, x).prev_sample
    return x


def diffusers_flow(scheduler: str, config: dict[str, Any], model: Model, problem: Problem, steps: int) -> Tensor:
    """Its schedulers for straight paths: velocity eps - x0."""
    made = getattr(import_module("diffusers"), scheduler)(**config)
    made.set_timesteps(steps)
    made.set_begin_index(0)
    x = problem.unit
    for t in made.timesteps:
        if made.step_index is None:
            made._init_step_index(t)
        sigma = float(made.sigmas[made.step_index])
        alpha = 1 - sigma
        x0 = model(x, alpha, sigma)
        velocity = (x - alpha * x0) / sigma - x0
        x = made.step(velocity, t, x).prev_sample
    return x


def diffusers_edm(scheduler: str, config: dict[str, Any], model: Model, problem: Problem, steps: int) -> Tensor:
    """Its schedulers for EDM: the network inside Karras' preconditioning, sigma_data 0.5."""
    made = getattr(import_module("diffusers"), scheduler)(**config)
    made.set_timesteps(steps)
    made.set_begin_index(0)
    x = problem.unit * made.init_noise_sigma
    for i, t in enumerate(made.timesteps):
        sigma = float(made.sigmas[i])
        scaled = made.scale_model_input(x, t)
        total = sigma**2 + 0.25
        x0 = model(scaled * math.sqrt(total), 1.0, sigma)
        out = (x0 - 0.25 / total * x) * math.sqrt(total) / (0.5 * sigma)
        x = made.step(out, t, x).prev_sample
    return x


def diffusers_ipndm(model: Model, problem: Problem, steps: int) -> Tensor:
    made = import_module("diffusers").IPNDMScheduler()
    made.set_timesteps(steps)
    made.set_begin_index(0)
    x = problem.unit
    for i, t in enumerate(made.timesteps):
        alpha, sigma = float(made.alphas[i]), float(made.betas[i])
        # What it wants is the velocity of its path, so that sigma x + alpha out is eps.
        eps = model.eps(x, alpha, sigma)
        x = made.step((eps - sigma * x) / alpha if alpha else -model(x, alpha, sigma), t, x).prev_sample
    return x


def diffusers_entries() -> Iterator[Entry]:
    spacings = {name: {"timestep_spacing": name} for name in ("linspace", "leading", "trailing")}
    flags = {name: {f"use_{name}_sigmas": True} for name in ("karras", "exponential", "beta")}
    finals = {"": {}, "to sigma_min": {"final_sigmas_type": "sigma_min"}}
    kinds = {"": {}, "heun": {"solver_type": "heun"}}

    def vp(solver: str, scheduler: str, base: dict[str, Any], *grids: dict[str, dict[str, Any]]) -> Iterator[Entry]:
        for choice in itertools.product(*(grid.items() for grid in grids)):
            config = dict(base)
            for _, options in choice:
                config |= options
            name = " ".join(name for name, _ in choice if name) or "default"
            yield Entry("diffusers", solver, "vp", name, partial(diffusers_vp, scheduler, config))

    yield from vp("DDIM", "DDIMScheduler", {"clip_sample": False}, spacings)
    for order in (2, 3):
        base = {"solver_order": order}
        lu = {"lu": {"use_lu_lambdas": True}}
        yield from vp(f"DPM++ {order}M", "DPMSolverMultistepScheduler", base, spacings | flags | lu, kinds, finals)
        single = {"default": {}, **flags}
        yield from vp(f"DPM++ {order}S", "DPMSolverSinglestepScheduler", base, single, kinds, finals)
        yield from vp(f"DEIS {order}", "DEISMultistepScheduler", base, spacings | flags)
    for order in (1, 2, 3):
        forms = {"": {}, "bh1": {"solver_type": "bh1"}}
        yield from vp(
            f"UniPC {order}", "UniPCMultistepScheduler", {"solver_order": order}, spacings | flags, forms, finals
        )
    for solver in ("LMS", "Heun", "Euler", "KDPM2"):
        yield from vp(solver, f"{solver}DiscreteScheduler", {}, spacings | flags)
    for name, skip in (("PNDM", False), ("PLMS", True)):
        yield from vp(name, "PNDMScheduler", {"skip_prk_steps": skip, "set_alpha_to_one": True}, spacings)
    yield Entry("diffusers", "iPNDM", "own", "default", diffusers_ipndm)
    for rho, kind in itertools.product((3.0, 5.0, 7.0, 10.0, None), ("", "heun")):
        grid = {"sigma_schedule": "exponential"} if rho is None else {"sigma_schedule": "karras", "rho": rho}
        name = "exponential" if rho is None else f"karras {rho:g}"
        if not kind:
            run = partial(diffusers_edm, "EDMEulerScheduler", grid)
            yield Entry("diffusers", "EDM Euler", "edm", name, run)
        for order in (2, 3):
            config = {**grid, "solver_order": order, "solver_type": kind or "midpoint"}
            run = partial(diffusers_edm, "EDMDPMSolverMultistepScheduler", config)
            yield Entry("diffusers", f"EDM DPM++ {order}M", "edm", f"{name} {kind}".strip(), run)
    for shift in (1.0, 3.0):
        for name in ("Euler", "Heun"):
            run = partial(diffusers_flow, f"FlowMatch{name}DiscreteScheduler", {"shift": shift})
            yield Entry("diffusers", f"flow {name}", "rectified", f"shift {shift:g}", run)
        config = {"use_flow_sigmas": True, "flow_shift": shift, "prediction_type": "flow_prediction"}
        for name, scheduler in (("DPM++ 2M", "DPMSolverMultistep"), ("UniPC 2", "UniPCMultistep")):
            run = partial(diffusers_flow, f"{scheduler}Scheduler", config)
            yield Entry("diffusers", f"flow {name}", "rectified", f"shift {shift:g}", run)


# --------------------------------------------------------------------------------------------------------- k-diffusion


def k_sampling() -> Any:
    """Its sampling.py alone: importing the whole package needs CLIP, W&B, scikit-image and an old setuptools."""
    if "k_diffusion" not in sys.modules and (found := importlib.util.find_spec("k_diffusion")):
        package = ModuleType("k_diffusion")
        package.__path__ = list(found.submodule_search_locations or [])
        sys.modules["k_diffusion"] = package
    return import_module("k_diffusion.sampling")


def k_entries() -> Iterator[Entry]:
    library = k_sampling()
    low, high = 0.002, 80.0
    grids: dict[str, Callable[[int], Tensor]] = {
        "exponential": lambda n: library.get_sigmas_exponential(n, low, high),
        "vp": lambda n: library.get_sigmas_vp(n),
    }
    for rho in (3.0, 5.0, 7.0, 10.0):
        grids[f"karras {rho:g}"] = lambda n, rho=rho: library.get_sigmas_karras(n, low, high, rho)
        grids[f"polyexponential {rho:g}"] = lambda n, rho=rho: library.get_sigmas_polyexponential(n, low, high, rho)

    def denoiser(model: Model) -> Callable[..., Tensor]:
        return lambda x, sigma: model(x, 1.0, float(sigma[0]))

    def on_grid(
        function: str, options: dict[str, Any], grid: Callable[[int], Tensor], model: Model, problem: Problem, n: int
    ) -> Tensor:
        sigmas = grid(n).double()
        x = problem.unit * float(sigmas[0])
        return getattr(library, function)(denoiser(model), x, sigmas, disable=True, **options)

    silent = {"eta": 0.0, "noise_sampler": lambda *_: 0.0}
    functions: dict[str, dict[str, Any]] = {
        "euler": {},
        "heun": {},
        "dpm_2": {},
        "lms": {},
        "dpmpp_2m": {},
        "dpmpp_2s_ancestral": silent,
        "dpmpp_sde": silent,
        "dpmpp_2m_sde": silent,
        "dpmpp_3m_sde": silent,
    }
    for function, options in functions.items():
        for grid, make in grids.items():
            name = f"{function} (eta 0)" if options else function
            run = partial(on_grid, f"sample_{function}", options, make)
            yield Entry("k-diffusion", name, "edm", grid, run)

    def fast(model: Model, problem: Problem, steps: int) -> Tensor:
        # It ends at sigma_min; one evaluation more denoises, as its other samplers do in their last step.
        if steps < 3:
            raise ValueError("too few steps for it")
        x = library.sample_dpm_fast(denoiser(model), problem.unit * high, low, high, steps - 1, disable=True)
        return model(x, 1.0, low)

    def adaptive(order: int, model: Model, problem: Problem, steps: int) -> Tensor:
        x = library.sample_dpm_adaptive(
            denoiser(model),
            problem.unit * high,
            low,
            high,
            order=order,
            rtol=10 ** (1.5 - steps / 10),
            atol=0.156 * 10 ** (1.5 - steps / 10),
            disable=True,
        )
        return model(x, 1.0, low)

    yield Entry("k-diffusion", "dpm_fast", "edm", "own", fast)
    for order in (2, 3):
        yield Entry("k-diffusion", f"dpm_adaptive {order}", "edm", "own", partial(adaptive, order), adaptive=True)


# --------------------------------------------------------------------------------------------------------------- azula


def azula_entries() -> Iterator[Entry]:
    samplers: Any = import_module("azula.sample")
    noises: Any = import_module("azula.noise")
    denoisers: Any = import_module("azula.denoise")

    class Exact(denoisers.Denoiser):
        def __init__(self, model: Model, schedule: Any) -> None:
            super().__init__()
            self.model, self.schedule = model, schedule

        def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> Any:
            alpha, sigma = self.schedule(t)
            return denoisers.DiracPosterior(self.model(x_t, float(alpha), float(sigma)))

    def run(sampler: str, options: dict[str, Any], schedule: Any, model: Model, problem: Problem, steps: int) -> Tensor:
        denoiser = Exact(model, schedule)
        made = getattr(samplers, sampler)(denoiser, steps=steps, silent=True, dtype=torch.float64, **options)
        first, last = ([float(value) for value in schedule(torch.tensor(t, dtype=torch.float64))] for t in (1.0, 0.0))
        # It stops at sigma_min > 0, alpha = 1, and gives that as the sample.
        return made(problem.unit * first[1]) / last[0]

    schedules = {
        "ve 1e-3..1e3": noises.VESchedule(),
        "ve edm": noises.VESchedule(0.002, 80.0),
        "vp": noises.VPSchedule(),
        "cosine": noises.CosineSchedule(),
        "rectified": noises.RectifiedSchedule(),
        "decay": noises.DecaySchedule(),
    }
    solvers: dict[str, tuple[str, dict[str, Any]]] = {
        "DDIM": ("DDIMSampler", {"eta": 0.0}),
        "Euler": ("EulerSampler", {}),
        "Heun": ("HeunSampler", {}),
    }
    for order in (2, 3, 4):
        for kind in ("zAB", "vAB", "zEAB", "xEAB", "REAB"):
            solvers[f"{kind} {order}"] = (f"{kind}Sampler", {"order": order})
    for (solver, (kind, options)), (grid, schedule) in itertools.product(solvers.items(), schedules.items()):
        yield Entry("azula", solver, "own", grid, partial(run, kind, options, schedule))


# ------------------------------------------------------------------------------------------------------ smalldiffusion


def small_entries() -> Iterator[Entry]:
    library: Any = import_module("smalldiffusion.diffusion")
    mixin: Any = import_module("smalldiffusion.model").ModelMixin

    class Exact(torch.nn.Module, mixin):
        def __init__(self, model: Model, dims: int) -> None:
            super().__init__()
            self.model, self.input_dims = model, (dims,)

        def forward(self, x: Tensor, sigma: Tensor, cond: Tensor | None = None) -> Tensor:
            return self.model.eps(x, 1.0, float(sigma))

    cpu = mock.Mock(device=torch.device("cpu"))

    def run(gam: float, schedule: Any, model: Model, problem: Problem, steps: int) -> Tensor:
        sigmas = schedule.sample_sigmas(steps).double()
        x = problem.unit * float(sigmas[0])
        network = Exact(model, x.shape[1])
        *_, last = library.samples(network, sigmas, gam=gam, batchsize=len(x), xt=x, accelerator=cpu)
        return last

    schedules = {
        "log-linear 0.02..10": library.ScheduleLogLinear(1000),
        "log-linear 0.01..20": library.ScheduleLogLinear(800, 0.01, 20),
        "log-linear 0.005..10": library.ScheduleLogLinear(200, 0.005, 10),
        "ddpm": library.ScheduleDDPM(),
        "ldm": library.ScheduleLDM(),
        "sigmoid": library.ScheduleSigmoid(),
        "cosine": library.ScheduleCosine(),
    }
    for gam, (grid, schedule) in itertools.product((1.0, 1.6, 2.0), schedules.items()):
        yield Entry("smalldiffusion", f"gam {gam:g}", "own", grid, partial(run, gam, schedule))


# ----------------------------------------------------------------------------------------- denoising-diffusion-pytorch


def lucid_entries() -> Iterator[Entry]:
    library: Any = import_module("denoising_diffusion_pytorch.denoising_diffusion_pytorch")
    elucidated: Any = import_module("denoising_diffusion_pytorch.elucidated_diffusion")

    class Network(torch.nn.Module):
        channels, out_dim, self_condition = 1, 1, False

        def __init__(self, predict: Callable[[Tensor, Tensor], Tensor], continuous: bool) -> None:
            super().__init__()
            self.random_or_learned_sinusoidal_cond = continuous
            self.predict, self.anchor = predict, torch.nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor, time: Tensor, *_: Any) -> Tensor:
            return self.predict(x.flatten(1), time).view_as(x)

    @contextlib.contextmanager
    def started(module: Any, unit: Tensor) -> Iterator[None]:
        """It draws its own start: hand it ours, and no progress bar."""
        silent = mock.patch.object(module, "tqdm", lambda steps, **_: steps)
        with silent, mock.patch.object(torch, "randn", return_value=unit):
            yield

    def ddim(betas: str, model: Model, problem: Problem, steps: int) -> Tensor:
        side = math.isqrt(problem.mixture.means.shape[1])
        holder: list[Any] = []

        def predict(x: Tensor, time: Tensor) -> Tensor:
            squared = float(holder[0].alphas_cumprod[int(time[0])])
            return model.eps(x, math.sqrt(squared), math.sqrt(1 - squared))

        made = library.GaussianDiffusion(
            Network(predict, continuous=False),
            image_size=side,
            objective="pred_noise",
            beta_schedule=betas,
            sampling_timesteps=steps,
            auto_normalize=False,
        )
        # A sampler given 1000 of 1000 steps would be ancestral; below that it is DDIM. It clips x0 to [-1, 1], which
        # helps on images; our data goes beyond.
        predictions = made.model_predictions
        made.model_predictions = lambda x, t, *rest, **options: predictions(x, t, *rest)
        holder.append(made.double())
        start = problem.unit.view(-1, 1, side, side)
        with started(library, start):
            return made.ddim_sample(tuple(start.shape)).flatten(1)

    def edm(function: str, rho: float, model: Model, problem: Problem, steps: int) -> Tensor:
        # It clips its samples to [-1, 1]: in units ten times as large ours stay inside, and its grids scale along.
        unit, (low, high) = 10.0, (0.002, 80.0)
        side = math.isqrt(problem.mixture.means.shape[1])
        holder: list[Any] = []

        def predict(x: Tensor, time: Tensor) -> Tensor:
            sigma = math.exp(4 * float(time[0]))
            made = holder[0]
            y = x / float(made.c_in(sigma))
            x0 = model(y * unit, 1.0, sigma * unit) / unit
            return (x0 - made.c_skip(sigma) * y) / made.c_out(sigma)

        made = elucidated.ElucidatedDiffusion(
            Network(predict, continuous=True),
            image_size=side,
            channels=1,
            sigma_min=low / unit,
            sigma_max=high / unit,
            rho=rho,
            S_churn=0,
        )
        holder.append(made)
        start = problem.unit.view(-1, 1, side, side)
        options = {"clamp": False} if function == "sample" else {}
        with started(elucidated, start):
            images = getattr(made, function)(len(start), num_sample_steps=steps, **options)
        return (2 * images - 1).flatten(1) * unit

    for betas in ("linear", "cosine", "sigmoid"):
        yield Entry("denoising-diffusion-pytorch", "DDIM", "own", betas, partial(ddim, betas))
    for rho in (3.0, 5.0, 7.0, 10.0):
        for name, function in (("Heun", "sample"), ("DPM++ 2M", "sample_using_dpmpp")):
            run = partial(edm, function, rho)
            yield Entry("denoising-diffusion-pytorch", name, "edm", f"karras {rho:g}", run)


# ---------------------------------------------------------------------------------------------------------------- ours


CONF = HERE.parent / "conf"
# Marks the spacing that a sampler's YAML comes with.
OWN = " (its own)"
# Spacings in noise see only a schedule's range; those in time follow it. Every peer gets its own processes too.
OUR_SCHEDULES = {
    "linear": "vp",
    "ve": "edm",
    "cosine": "own",
    "log_linear": "own",
    "rectified": "own",
    "scaled_linear": "own",
    "sigmoid": "own",
}
# Our YAMLs' parameters that peers spell as solvers of their own.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "deis": [{"order": 2}, {"order": 4}],
    "lms": [{"order": 2}, {"order": 3}],
    "gradient_estimation": [{"gamma": 1.0}, {"gamma": 1.6}],
    "adams_bashforth_v": [{"order": 2}, {"order": 4}],
    "dpmpp_3m": [{"order": 2}, {"order": 4}],
}


def our_samplers() -> dict[str, Sampler]:
    """Every deterministic sampler YAML, those with noise at eta 0, and the variants."""
    made: dict[str, Sampler] = {}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        schedule = instantiate(compose(overrides=["+schedule=linear"]).schedule)
        for path in sorted((CONF / "sampler").glob("*.yaml")):
            sampler: Sampler = instantiate(compose(overrides=[f"+sampler={path.stem}", "sampler.nfe=1000"]).sampler)
            # The default is Adams-Bashforth in v at another order and on other levels at each cost.
            if path.stem not in ("adaptive", "recommended") and sampler.deterministic(schedule):
                made[path.stem] = sampler
            elif path.stem == "dpmpp_sde":
                made["dpmpp_sde (eta 0)"] = replace(sampler, noise=SDE())
    for name, changes in VARIANTS.items():
        for change in changes:
            solver: Any = made[name].solver
            label = " ".join(f"{key}={value}" for key, value in change.items())
            made[f"{name} {label}"] = replace(made[name], solver=replace(solver, **change))
    return made


def our_spacings() -> dict[str, tuple[bool, Any]]:
    """Every spacing YAML and the same rho as peers get; whether it follows the schedule's time."""
    made: dict[str, tuple[bool, Any]] = {}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        # ``exponential`` is ``logsnr`` by another name.
        for path in sorted((CONF / "sampler" / "spacing").glob("*.yaml"), reverse=True):
            spacing = instantiate(compose(overrides=["+sampler=ddim", f"sampler/spacing={path.stem}"]).sampler.spacing)
            if path.stem != "recommended" and spacing not in [known for _, known in made.values()]:
                made[path.stem] = not hasattr(spacing, "noise_min") and not hasattr(spacing, "noises"), spacing
    for rho in (3.0, 5.0, 10.0):
        made[f"karras {rho:g}"] = False, replace(made["karras"][1], rho=rho)
    # 0.01 is where the chain of 1,000 linear betas ends, and so diffusers' grids; 0.002 is EDM's.
    for name, low in (("logsnr", 0.002), ("logsnr", 0.02), ("karras", 0.01)):
        made[f"{name} from {low:g}"] = False, replace(made[name][1], noise_min=low)
    # Solvers that cannot start from pure noise start a little below, as diffusers' flow grids do.
    made["time from 0.999"] = True, replace(made["time"][1], first=0.999)
    return made


def our_run(sampler: Sampler, schedule: Schedule, model: Model, problem: Problem, steps: int) -> Tensor:
    # Its cost is what it says, so that "steps" can be the budget.
    sampler = replace(sampler, nfe=steps)
    return sampler(lambda x, level, condition=None: model(x, level.alpha, level.sigma), problem.unit, schedule=schedule)


def our_adaptive(sampler: Sampler, schedule: Schedule, model: Model, problem: Problem, steps: int) -> Tensor:
    # Its cost follows from the tolerance, of which "steps" is a scale here.
    solver: Any = sampler.solver
    tolerance = 10 ** (0.5 - steps / 12)
    solver = replace(solver, relative=tolerance, absolute=tolerance, limit=1000)
    return our_run(replace(sampler, solver=solver), schedule, model, problem, 1000)


def our_entries() -> Iterator[Entry]:
    samplers, spacings = our_samplers(), our_spacings()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        schedules = {name: instantiate(compose(overrides=[f"+schedule={name}"]).schedule) for name in OUR_SCHEDULES}
        adaptive: Sampler = instantiate(compose(overrides=["+sampler=adaptive"]).sampler)
    for name, sampler in samplers.items():
        own = next((key for key, (_, spacing) in spacings.items() if spacing == sampler.spacing), "own")
        for schedule, process in OUR_SCHEDULES.items():
            for grid, (timed, spacing) in spacings.items():
                if timed or process != "own" or "time" in name:
                    label = f"{schedule} {grid}" + (OWN if grid == own else "")
                    run = partial(our_run, replace(sampler, spacing=spacing), schedules[schedule])
                    yield Entry("diffsweep", name, process, label, run)
    for schedule in ("linear", "ve"):
        run = partial(our_adaptive, adaptive, schedules[schedule])
        yield Entry("diffsweep", "adaptive", OUR_SCHEDULES[schedule], f"{schedule} own", run, adaptive=True)


ENTRIES: dict[str, Callable[[], Iterable[Entry]]] = {
    "diffsweep": our_entries,
    "diffusers": diffusers_entries,
    "k-diffusion": k_entries,
    "azula": azula_entries,
    "smalldiffusion": small_entries,
    "denoising-diffusion-pytorch": lucid_entries,
}


# ----------------------------------------------------------------------------------------------------------- measuring


def cost(entry: Entry, problem: Problem, steps: int) -> float:
    """Evaluations that so many steps take; infinite where the package fails."""
    model = Model(problem.denoise)
    try:
        entry.run(model, problem, steps)
    except (ValueError, IndexError, RuntimeError, AssertionError, ZeroDivisionError):
        return math.inf
    return model.calls


def affordable(entry: Entry, trial: Problem, nfe: int) -> int | None:
    """The most steps whose evaluations, counted on a trial problem, fit into the budget."""
    # Most take one evaluation a step, and exactly as many as they are asked for.
    if not entry.adaptive and cost(entry, trial, nfe) == nfe:
        return nfe
    low, high = 0, nfe + 1
    while low < high:
        middle = (low + high + 1) // 2
        if cost(entry, trial, middle) <= nfe:
            low = middle
        else:
            high = middle - 1
    # Packages that need a few steps at least fail below them, which the search above may have taken for too dear.
    if low == 0:
        low = max((steps for steps in range(1, nfe + 2) if cost(entry, trial, steps) <= nfe), default=0)
    return low or None


def measure(entry: Entry, problem: Problem, trial: Problem, nfe: int) -> dict[str, Any] | None:
    steps = affordable(entry, problem if entry.adaptive else trial, nfe)
    if steps is None:
        return None
    model = Model(problem.denoise)
    error = problem.error(entry.run(model, problem, steps))
    assert model.calls <= nfe, (entry, nfe, model.calls)
    return {
        "problem": problem.name,
        "package": entry.package,
        "solver": entry.solver,
        "process": entry.process,
        "grid": entry.grid,
        "nfe": nfe,
        "used": model.calls,
        "error": error,
    }


# ----------------------------------------------------------------------------------------------------------- reporting


def sweep(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    records: list[dict[str, Any]] = []
    start = time.monotonic()
    entries = [entry for package in args.only for entry in ENTRIES[package]()]
    for kind in (Line, Cloud):
        if kind.name not in args.problems:
            continue
        problem, trial = kind(), kind(2)
        if isinstance(problem, Cloud):
            problem.solve()
            print(f"{problem.name}: halving every step of the reference moves its end by {problem.convergence:.1e}")
        for i, entry in enumerate(entries):
            share, elapsed = (i + 1) / len(entries), time.monotonic() - start
            if sys.stderr.isatty():
                sys.stderr.write(
                    f"\r{problem.name} {share:6.1%} {elapsed:.0f} s  {entry.package} {entry.solver:40.40s}"
                )
            for nfe in args.nfe:
                with torch.inference_mode():
                    record = measure(entry, problem, trial, nfe)
                if record is not None and math.isfinite(record["error"]):
                    records.append(record)
    sys.stderr.write("\n")
    save(args.out, records)


def save(out: Path, records: list[dict[str, Any]]) -> None:
    """Keep the best grid of each solver at each budget, and its own, in place of what the file had of the same."""
    path = out.with_suffix(".json")
    known = json.loads(path.read_text())["records"] if path.is_file() else []
    measured = {(record["problem"], record["package"]) for record in records}
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in [*(r for r in known if (r["problem"], r["package"]) not in measured), *records]:
        shipped = record["process"] if OWN in record["grid"] else None
        key = *(record[name] for name in ("problem", "package", "solver", "nfe")), shipped
        if key not in best or record["error"] < best[key]["error"]:
            best[key] = {**record, "error": float(f"{record['error']:.4g}")}
    names = [name for name in PACKAGES if name != "diffsweep"]
    versions = {name: importlib.metadata.version(name) for name in ("torch", *names)}
    path.write_text(dump({"versions": versions, "date": time.strftime("%Y-%m-%d"), "records": list(best.values())}))


# Ours and the peers' solvers of that name (k-diffusion's stochastic ones at eta 0).
NAMESAKES: dict[str, list[tuple[str, str]]] = {
    "ddim": [
        ("diffusers", "DDIM"),
        ("azula", "DDIM"),
        ("smalldiffusion", "gam 1"),
        ("denoising-diffusion-pytorch", "DDIM"),
    ],
    "euler": [
        ("diffusers", "Euler"),
        ("diffusers", "EDM Euler"),
        ("diffusers", "flow Euler"),
        ("k-diffusion", "euler"),
        ("azula", "Euler"),
    ],
    "heun": [
        ("diffusers", "Heun"),
        ("k-diffusion", "heun"),
        ("azula", "Heun"),
        ("denoising-diffusion-pytorch", "Heun"),
    ],
    "heun_flow": [("diffusers", "flow Heun")],
    "dpm_solver_2": [("diffusers", "KDPM2"), ("k-diffusion", "dpm_2")],
    "dpm_solver_3": [("k-diffusion", "dpm_fast")],
    "dpmpp_2m": [
        ("diffusers", "DPM++ 2M"),
        ("diffusers", "EDM DPM++ 2M"),
        ("diffusers", "flow DPM++ 2M"),
        ("k-diffusion", "dpmpp_2m"),
        ("k-diffusion", "dpmpp_2m_sde (eta 0)"),
        ("azula", "xEAB 2"),
        ("denoising-diffusion-pytorch", "DPM++ 2M"),
    ],
    "dpmpp_3m": [
        ("diffusers", "DPM++ 3M"),
        ("diffusers", "EDM DPM++ 3M"),
        ("k-diffusion", "dpmpp_3m_sde (eta 0)"),
        ("azula", "xEAB 3"),
    ],
    "dpmpp_2s": [("diffusers", "DPM++ 2S"), ("k-diffusion", "dpmpp_2s_ancestral (eta 0)")],
    "dpmpp_sde (eta 0)": [("k-diffusion", "dpmpp_sde (eta 0)")],
    "unipc_1": [("diffusers", "UniPC 1")],
    "unipc": [("diffusers", "UniPC 2"), ("diffusers", "flow UniPC 2")],
    "unipc_3": [("diffusers", "UniPC 3")],
    "deis order=2": [("diffusers", "DEIS 2"), ("azula", "zEAB 2")],
    "deis": [("diffusers", "DEIS 3"), ("azula", "zEAB 3")],
    "deis order=4": [("azula", "zEAB 4")],
    "lms order=2": [("azula", "zAB 2")],
    "lms order=3": [("azula", "zAB 3")],
    "lms": [("diffusers", "LMS"), ("k-diffusion", "lms"), ("azula", "zAB 4")],
    "pndm": [("diffusers", "PLMS"), ("diffusers", "PNDM")],
    "ipndm": [("diffusers", "iPNDM")],
    "adams_bashforth_v order=2": [("azula", "vAB 2")],
    "adams_bashforth_v": [("azula", "vAB 3")],
    "adams_bashforth_v order=4": [("azula", "vAB 4")],
    "dpmpp_3m order=4": [("azula", "xEAB 4")],
    "gradient_estimation gamma=1.6": [("smalldiffusion", "gam 1.6")],
    "gradient_estimation": [("smalldiffusion", "gam 2")],
}


def cross(out: Path) -> None:
    """Run what each package found best on one problem on the other: a choice made by luck does not travel."""
    path = out.with_suffix(".json")
    data = json.loads(path.read_text())
    results = Results(out)
    if len(results.problems) < 2:
        return
    problems: dict[str, tuple[Problem, Problem]] = {"1d": (Line(), Line(2)), "64d": (Cloud(), Cloud(2))}
    cloud = problems["64d"][0]
    assert isinstance(cloud, Cloud)
    cloud.solve()
    crossed: list[dict[str, Any]] = []
    for package in PACKAGES:
        entries = {(entry.solver, entry.process, entry.grid): entry for entry in ENTRIES[package]()}
        for (here, there), nfe in itertools.product((("1d", "64d"), ("64d", "1d")), results.budgets):
            best = results.champion(here, package, nfe)
            if best is not None:
                entry = entries[best["solver"], best["process"], best["grid"]]
                with torch.inference_mode():
                    record = measure(entry, *problems[there], nfe)
                if record is not None:
                    crossed.append({**record, "error": float(f"{record['error']:.4g}")})
    path.write_text(dump({**data, "crossed": crossed}))


def dump(data: dict[str, Any]) -> str:
    return json.dumps(data).replace('{"problem"', '\n{"problem"') + "\n"


TITLES = {"1d": "Two Gaussians in 1 dimension", "64d": "32 Gaussians in 64 dimensions"}


class Results:
    """The JSON's records, by problem, package, solver and budget, each with its best grid over all processes."""

    def __init__(self, out: Path) -> None:
        data = json.loads(out.with_suffix(".json").read_text())
        self.versions = data["versions"]
        self.best: dict[tuple[str, str, str, int], dict[str, Any]] = {}
        self.shipped: dict[tuple[str, str, str, int], float] = {}
        self.crossed: list[dict[str, Any]] = data.get("crossed", [])
        for record in data["records"]:
            if OWN in record["grid"]:
                where = record["problem"], record["solver"], record["process"], record["nfe"]
                self.shipped[where] = min(record["error"], self.shipped.get(where, math.inf))
            key = record["problem"], record["package"], record["solver"], record["nfe"]
            if key not in self.best or record["error"] < self.best[key]["error"]:
                self.best[key] = record
        self.problems = [name for name in ("1d", "64d") if any(key[0] == name for key in self.best)]
        self.budgets = sorted({key[3] for key in self.best})

    def solvers(self, problem: str, package: str) -> list[str]:
        return list(dict.fromkeys(key[2] for key in self.best if key[:2] == (problem, package)))

    def error(self, problem: str, package: str, solver: str, nfe: int) -> float:
        record = self.best.get((problem, package, solver, nfe))
        return record["error"] if record else math.inf

    def champion(self, problem: str, package: str, nfe: int) -> dict[str, Any] | None:
        fits = [r for (where, who, _, n), r in self.best.items() if (where, who, n) == (problem, package, nfe)]
        return min(fits, key=lambda record: record["error"], default=None)

    def champions(self, problem: str) -> str:
        """Each package's best solver on its best grid, at each budget."""
        rows = [
            f"| package | {' | '.join(f'NFE {nfe}' for nfe in self.budgets)} |",
            "|---" * (1 + len(self.budgets)) + "|",
        ]
        for package in PACKAGES:
            cells = []
            for nfe in self.budgets:
                best = self.champion(problem, package, nfe)
                cells.append(f"{best['error']:.2g} ({best['solver']}, {best['grid']})" if best else "")
            rows.append(f"| {package} | {' | '.join(cells)} |")
        return "\n".join(rows)

    def namesakes(self, problem: str) -> str:
        """Ours and, in brackets, the best peer of that name; what is worse than the peer by more than 1 % is bold."""
        rows = [
            f"| sampler | {' | '.join(f'NFE {nfe}' for nfe in self.budgets)} |",
            "|---" * (1 + len(self.budgets)) + "|",
        ]
        named = [name for name in NAMESAKES if name in self.solvers(problem, "diffsweep")]
        rest = [name for name in self.solvers(problem, "diffsweep") if name not in named]
        for name in [*named, *rest]:
            cells = []
            for nfe in self.budgets:
                mine = self.error(problem, "diffsweep", name, nfe)
                peers = [self.error(problem, package, solver, nfe) for package, solver in NAMESAKES.get(name, [])]
                text = f"{mine:.2g}" if math.isfinite(mine) else "-"
                if peers:
                    theirs = min(peers)
                    text = f"**{text}**" if mine > 1.01 * theirs else text
                    text += f" ({theirs:.2g})" if math.isfinite(theirs) else " (-)"
                cells.append(text)
            rows.append(f"| {name} | {' | '.join(cells)} |")
        return "\n".join(rows)

    def as_shipped(self, problem: str) -> str:
        """Our YAMLs as they come, on linear betas and on EDM's noise levels."""
        heads = [f"{process} {nfe}" for process in ("vp", "edm") for nfe in self.budgets]
        rows = [f"| sampler | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
        for name in dict.fromkeys(solver for where, solver, _, _ in self.shipped if where == problem):
            cells = [
                f"{self.shipped.get((problem, name, process, nfe), math.nan):.2g}"
                for process in ("vp", "edm")
                for nfe in self.budgets
            ]
            rows.append(f"| {name} | {' | '.join(cells)} |")
        return "\n".join(rows)

    def transferred(self, problem: str) -> str:
        """Each package's choice at each budget as made on the other problem."""
        rows = [
            f"| package | {' | '.join(f'NFE {nfe}' for nfe in self.budgets)} |",
            "|---" * (1 + len(self.budgets)) + "|",
        ]
        found = {(r["package"], r["nfe"]): r for r in self.crossed if r["problem"] == problem}
        for package in PACKAGES:
            cells = [f"{found[package, n]['error']:.2g}" if (package, n) in found else "" for n in self.budgets]
            rows.append(f"| {package} | {' | '.join(cells)} |")
        return "\n".join(rows)

    def plot(self, out: Path) -> None:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, all_axes = plt.subplots(1, len(self.problems), figsize=(5.6 * len(self.problems), 4.2), squeeze=False)
        for axes, problem in zip(all_axes[0], self.problems, strict=True):
            for package in PACKAGES:
                best = [(nfe, record) for nfe in self.budgets if (record := self.champion(problem, package, nfe))]
                style = {"color": "black", "linewidth": 2.5} if package == "diffsweep" else {"linewidth": 1.2}
                axes.plot([nfe for nfe, _ in best], [r["error"] for _, r in best], "o-", label=package, **style)
            kind = Line if problem == "1d" else Cloud
            axes.set(xscale="log", yscale="log", xlabel="network evaluations")
            axes.set(ylabel=kind.error_name, title=TITLES[problem])
            axes.set_xticks(self.budgets, [str(nfe) for nfe in self.budgets])
            axes.minorticks_off()
        all_axes[0][0].legend(fontsize="small")
        figure.tight_layout()
        figure.savefig(out.with_suffix(".png"), dpi=150)


def report(out: Path) -> str:
    """Write the plot and a page with all tables; returns the page."""
    results = Results(out)
    results.plot(out)
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    parts = [f"# Accuracy of samplers at equal cost\n\nMade by `solver_accuracy.py`; README.md explains. {versions}."]
    for problem, title in TITLES.items():
        if problem in results.problems:
            parts += [f"## {title}: best of each package", results.champions(problem)]
            parts += [f"## {title}: solver and grid chosen on the other problem", results.transferred(problem)]
            parts += [
                f"## {title}: samplers of the same name",
                "Ours, and in brackets the best peer of that name; bold where ours is worse by more than 1 %.",
                results.namesakes(problem),
                f"## {title}: ours as shipped, each with its own spacing",
                results.as_shipped(problem),
            ]
    page = "\n\n".join(parts)
    out.with_suffix(".md").write_text(page + "\n")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(PACKAGES), choices=PACKAGES, help="measure these anew")
    parser.add_argument("--problems", nargs="+", default=["1d", "64d"], choices=["1d", "64d"])
    parser.add_argument("--nfe", type=int, nargs="+", default=list(BUDGETS), help="budgets of network evaluations")
    parser.add_argument("--out", type=Path, default=HERE / "solver_accuracy", help="results, without an ending")
    parser.add_argument("--report", action="store_true", help="only the tables and the plot of what is there")
    args = parser.parse_args()
    if not args.report:
        sweep(args)
        cross(args.out)
    print(report(args.out))


if __name__ == "__main__":
    main()
