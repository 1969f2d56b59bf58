"""The same network, noise and levels give the same samples as diffusers and k-diffusion, wherever these are right.

Where they are not, the test says what is wrong and the oracle shows who is right.
"""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor, nn

from diffsweep.diffusion import CLEAN, GaussianMixture, Level, Sampler, Schedule
from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.noise import Ancestral, Churn
from diffsweep.diffusion.schedules import linear_betas
from diffsweep.diffusion.solvers import Midpoint, Multistep
from prerequisites import need_module

# What peers do with NumPy is theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CONF = Path(__file__).parent.parent / "conf"
ORACLE = GaussianMixture.of([0.5, 0.5], [[-0.5], [0.6]], [0.15, 0.25])
POINTS = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
STEPS = 20


class Network(nn.Module):
    """A random network in EDM's preconditioning, a function of y = x / alpha and the noise, for any process."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(7, 32), nn.Tanh(), nn.Linear(32, 6)).double()

    def x0(self, y: Tensor, noise: float) -> Tensor:
        total = 1 + noise**2
        here = torch.full((len(y), 1), math.log(noise) / 4, dtype=torch.float64)
        out = self.layers(torch.cat([y / math.sqrt(total), here], 1))
        return y / total + noise / math.sqrt(total) * out

    def forward(self, x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
        return self.x0(x / level.alpha, level.sigma / level.alpha)

    def eps(self, x: Tensor, noise: float) -> Tensor:
        """Eps of a state on the variance-preserving path."""
        y = x * math.sqrt(1 + noise**2)
        return (y - self.x0(y, noise)) / noise


NETWORK = Network().requires_grad_(False)
UNIT = torch.randn(5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@dataclass(frozen=True)
class Exactly:
    """The peer's own levels."""

    levels: tuple[Level, ...]

    def __call__(self, schedule: Schedule, steps: int) -> list[Level]:
        assert steps == len(self.levels) - 1
        return list(self.levels)


def preserving(noise: float) -> Level:
    return Level(1 / math.sqrt(1 + noise**2), noise / math.sqrt(1 + noise**2)) if noise else CLEAN


def exploding(noise: float) -> Level:
    return Level(1.0, noise) if noise else CLEAN


@cache
def sampler(name: str) -> Sampler:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose(overrides=[f"+sampler={name}", "sampler.nfe=1000"]).sampler)


def ours(chosen: str | Sampler, levels: Sequence[Level], unit: Tensor = UNIT, denoise: Any = NETWORK) -> Tensor:
    """Our sampler of that name on the given levels, from unit noise, its fresh noise seeded with 7."""
    made = sampler(chosen) if isinstance(chosen, str) else chosen
    nfe = made.solver.nfe(made.noise.count(len(levels) - 1))
    made = replace(made, spacing=Exactly(tuple(levels)), nfe=nfe)
    # The schedule gives no levels here; linear betas are what diffusers' are made of.
    return made(denoise, unit, schedule=linear_betas(), generator=seeded())


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def close(got: Tensor, want: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


# ----------------------------------------------------------------------------------------------------------- diffusers


def scheduler(name: str, **config: Any) -> Any:
    package = need_module("diffusers")
    made = getattr(package, name)(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", **config)
    made.set_timesteps(STEPS)
    return made


Model = Callable[[Tensor, float], Tensor]


def by_timestep(made: Any, unit: Tensor = UNIT, eps: Model = NETWORK.eps) -> tuple[Tensor, list[Level]]:
    """Run a scheduler that knows its levels by their index in the chain."""
    squared = [float(value) for value in made.alphas_cumprod]
    noises = [math.sqrt((1 - squared[int(t)]) / squared[int(t)]) for t in made.timesteps]
    x, generator = unit * preserving(noises[0]).sigma, seeded()
    options = {"generator": generator} if "generator" in inspect.signature(made.step).parameters else {}
    for t, noise in zip(made.timesteps, noises, strict=True):
        x = made.step(eps(x, noise), t, x, **options).prev_sample
    return x, [*(preserving(noise) for noise in noises), CLEAN]


def by_sigma(
    made: Any, path: Callable[[float], Level] = preserving, unit: Tensor = UNIT, eps: Model = NETWORK.eps
) -> tuple[Tensor, list[Level]]:
    """Run a scheduler that has a list of noises; its state may be on either path."""
    made.set_begin_index(0)
    noises = [float(noise) for noise in made.sigmas]
    x, generator = unit * path(noises[0]).sigma, seeded()
    options = {"generator": generator} if "Ancestral" in type(made).__name__ else {}
    for t in made.timesteps:
        if made.step_index is None:
            made._init_step_index(t)
        index: int = made._step_index
        second = hasattr(made, "sigmas_interpol") and not made.state_in_first_order
        noise = float(made.sigmas_interpol[index]) if second else noises[index]
        x = made.step(eps(made.scale_model_input(x, t), noise), t, x, **options).prev_sample
    # Two-stage schedulers list each noise twice.
    return x, [path(noise) for noise in dict.fromkeys(noises)]


def test_diffusers_ddim() -> None:
    theirs, levels = by_timestep(scheduler("DDIMScheduler", clip_sample=False, timestep_spacing="trailing"))
    close(ours("ddim", levels), theirs)


def test_diffusers_ddim_with_eta_one_is_ddpm() -> None:
    theirs, levels = by_timestep(scheduler("DDPMScheduler", clip_sample=False, timestep_spacing="trailing"))
    close(ours("ddpm", levels), theirs)
    close(ours(replace(sampler("ddim"), noise=Ancestral(1.0)), levels), theirs)


@pytest.mark.parametrize("grid", ["karras", "exponential", "beta"])
def test_diffusers_dpmpp_2m(grid: str) -> None:
    theirs, levels = by_sigma(scheduler("DPMSolverMultistepScheduler", **{f"use_{grid}_sigmas": True}))
    close(ours("dpmpp_2m", levels), theirs)


def test_diffusers_dpmpp_2m_in_heun_form_is_the_exact_integral() -> None:
    theirs, levels = by_sigma(scheduler("DPMSolverMultistepScheduler", solver_type="heun"))
    close(ours(replace(sampler("dpmpp_3m"), solver=Multistep("x0", "logsnr", 2)), levels), theirs)


@pytest.mark.parametrize(
    ("name", "theirs"), [("euler", "Euler"), ("euler_ancestral", "EulerAncestral"), ("heun", "Heun"), ("lms", "LMS")]
)
def test_diffusers_on_noise_levels(name: str, theirs: str) -> None:
    sample, levels = by_sigma(scheduler(f"{theirs}DiscreteScheduler"), exploding)
    close(ours(name, levels), sample)


@pytest.mark.parametrize(("name", "order"), [("unipc_1", 1), ("unipc", 2), ("unipc_3", 3)])
def test_diffusers_unipc(name: str, order: int) -> None:
    theirs, levels = by_sigma(scheduler("UniPCMultistepScheduler", solver_order=order))
    close(ours(name, levels), theirs)


def test_diffusers_unipc_with_bh1_is_right_up_to_the_last_step() -> None:
    """To clean data, where its B(h) = h is infinite, it gives NaN; ours takes the last step as Euler does."""
    config = {"solver_order": 2, "solver_type": "bh1"}
    theirs, levels = by_sigma(scheduler("UniPCMultistepScheduler", **config))
    assert theirs.isnan().all()
    assert ours("unipc_bh1", levels).isfinite().all()
    theirs, levels = by_sigma(scheduler("UniPCMultistepScheduler", final_sigmas_type="sigma_min", **config))
    close(ours("unipc_bh1", levels), theirs)


@pytest.mark.parametrize("order", [2, 3])
def test_diffusers_deis(order: int) -> None:
    # Its last level is not clean data.
    theirs, levels = by_sigma(scheduler("DEISMultistepScheduler", solver_order=order))
    assert levels[-1].sigma > 0
    close(ours(replace(sampler("deis"), solver=Multistep("eps", "logsnr", order)), levels), theirs)


def test_diffusers_kdpm2() -> None:
    theirs, _ = by_sigma(made := scheduler("KDPM2DiscreteScheduler"), exploding)
    close(ours("dpm_solver_2", [exploding(float(noise)) for noise in dict.fromkeys(made.sigmas.tolist())]), theirs)


def test_diffusers_pndm() -> None:
    made = scheduler("PNDMScheduler", skip_prk_steps=True, set_alpha_to_one=True)
    theirs, levels = by_timestep(made)
    # The second timestep is listed twice, for the first step takes two evaluations.
    assert levels[1] == levels[2]
    close(ours("pndm", [levels[0], *levels[2:]]), theirs)


# --------------------------------------------------------------------------------------------------------- k-diffusion


@cache
def k_sampling() -> Any:
    """Its sampling.py alone: importing the whole package needs CLIP, W&B, scikit-image and an old setuptools."""
    if "k_diffusion" not in sys.modules and (found := importlib.util.find_spec("k_diffusion")):
        package = ModuleType("k_diffusion")
        package.__path__ = list(found.submodule_search_locations or [])
        sys.modules["k_diffusion"] = package
    return need_module("k_diffusion.sampling")


def sigmas(steps: int = STEPS) -> Tensor:
    return k_sampling().get_sigmas_karras(steps, 0.002, 80.0).double()


def k_run(function: str, grid: Tensor, unit: Tensor = UNIT, denoise: Any = NETWORK, **options: Any) -> Tensor:
    def model(x: Tensor, sigma: Tensor) -> Tensor:
        return denoise(x, Level(1.0, float(sigma[0])))

    generator = seeded()

    def fresh(*_: Any) -> Tensor:
        return torch.randn(unit.shape, generator=generator, dtype=unit.dtype)

    if "noise_sampler" in inspect.signature(getattr(k_sampling(), function)).parameters:
        options = {"noise_sampler": fresh, **options}
    with mock.patch.object(torch, "randn_like", fresh):
        return getattr(k_sampling(), function)(model, unit * grid[0], grid, disable=True, **options)


def levels_of(grid: Tensor) -> list[Level]:
    return [exploding(float(noise)) for noise in grid]


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("euler", "euler"),
        ("euler_ancestral", "euler_ancestral"),
        ("heun", "heun"),
        ("dpm_solver_2", "dpm_2"),
        ("dpm2_ancestral", "dpm_2_ancestral"),
        ("lms", "lms"),
        ("dpmpp_2s_ancestral", "dpmpp_2s_ancestral"),
        ("dpmpp_2m", "dpmpp_2m"),
        ("dpmpp_2m_sde", "dpmpp_2m_sde"),
    ],
)
def test_k_diffusion(name: str, theirs: str) -> None:
    close(ours(name, levels_of(sigmas())), k_run(f"sample_{theirs}", sigmas()))


@pytest.mark.parametrize(("name", "theirs"), [("euler", "euler"), ("heun_sde", "heun")])
def test_k_diffusion_with_churn(name: str, theirs: str) -> None:
    # Without limits, for it draws noise in the steps too that churn leaves alone.
    noise = Churn(amount=5.0, noise_min=0.0, noise_max=math.inf, boost=1.007)
    want = k_run(f"sample_{theirs}", sigmas(), s_churn=5.0, s_noise=1.007)
    close(ours(replace(sampler(name), noise=noise), levels_of(sigmas())), want)


def test_k_diffusion_dpmpp_2m_sde_in_heun_form_is_the_exact_integral() -> None:
    want = k_run("sample_dpmpp_2m_sde", sigmas(), solver_type="heun")
    close(ours(replace(sampler("dpmpp_3m_sde"), solver=Multistep("x0", "logsnr", 2)), levels_of(sigmas())), want)


def test_k_diffusion_dpmpp_2s_without_noise() -> None:
    want = k_run("sample_dpmpp_2s_ancestral", sigmas(), eta=0.0)
    close(ours("dpmpp_2s", levels_of(sigmas())), want)
    two = Sampler(Midpoint("x0", "logsnr"), Exactly(()), 1)
    close(ours(two, levels_of(sigmas())), k_run("sample_dpmpp_sde", sigmas(), eta=0.0))


def test_k_diffusion_dpmpp_sde() -> None:
    """Theirs is given the noise of a whole step made of that of its halves, as its Brownian tree would make it."""
    grid = sigmas()
    fine: list[float] = []
    for t, s in itertools.pairwise(grid):
        fine += [float(t), float((t * s).sqrt())] if s > 0 else [float(t)]
    generator = seeded()
    halves: list[Tensor] = []

    def up(t: float, s: float) -> float:
        return s * math.sqrt(1 - (s / t) ** 2)

    def noise(t: Tensor, s: Tensor) -> Tensor:
        z = torch.randn(UNIT.shape, generator=generator, dtype=torch.float64)
        if not halves:
            halves.append(z)
            return z
        start, end = float(t), float(s)
        middle = math.sqrt(start * end)
        whole = (end / middle) ** 2 * up(start, middle) * halves.pop() + up(middle, end) * z
        return whole / up(start, end)

    want = k_run("sample_dpmpp_sde", grid, noise_sampler=noise)
    close(ours("dpmpp_sde", [*map(exploding, fine), CLEAN]), want)


# ------------------------------------------------------------------------------------------------ where peers are wrong


def slope(solve: Callable[[int], tuple[Tensor, float]]) -> float:
    """The measured order of what gives, for a number of steps, the end of the quantiles and the noise they start at."""
    steps = [64, 128, 256, 512]
    errors = []
    for n in steps:
        got, noise = solve(n)
        start = Level(1.0, noise)
        exact = ORACLE.flow(quantiles(noise)[:, 0], start, CLEAN)
        errors.append(float((got.flatten() - exact).square().mean().sqrt()))
    return -float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


def quantiles(noise: float) -> Tensor:
    return ORACLE.quantile(POINTS, Level(1.0, noise))[:, None]


def logsnr_grid(n: int) -> Tensor:
    """Equal steps in log-SNR, the last to clean data too small to matter."""
    return torch.cat([torch.logspace(math.log10(80.0), -5, n, dtype=torch.float64), torch.zeros(1)])


def test_k_diffusion_dpmpp_3m_lacks_a_factor_of_two_and_is_of_order_two() -> None:
    """Its second derivative is half of what the polynomial through three values has; with it, both agree."""

    def theirs(n: int) -> tuple[Tensor, float]:
        grid = logsnr_grid(n)
        return k_run("sample_dpmpp_3m_sde", grid, quantiles(80.0) / 80, ORACLE, eta=0.0), 80.0

    def corrected(n: int) -> tuple[Tensor, float]:
        return ours("dpmpp_3m", levels_of(logsnr_grid(n)), quantiles(80.0) / 80, ORACLE), 80.0

    assert slope(theirs) == pytest.approx(2, abs=0.3)
    assert slope(corrected) == pytest.approx(3, abs=0.3)
    library = k_sampling()
    source = inspect.getsource(library.sample_dpmpp_3m_sde)
    assert source.count("- phi_3 * d2") == 1
    namespace = dict(vars(library))
    exec(source.replace("- phi_3 * d2", "- phi_3 * 2 * d2"), namespace)
    with mock.patch.object(library, "sample_dpmpp_3m_sde", namespace["sample_dpmpp_3m_sde"]):
        for name, eta in (("dpmpp_3m", 0.0), ("dpmpp_3m_sde", 1.0)):
            close(ours(name, levels_of(sigmas())), k_run("sample_dpmpp_3m_sde", sigmas(), eta=eta))


def test_diffusers_dpmpp_3m_lacks_the_same_factor() -> None:
    """A short schedule ends in orders 2 and 1 there, so this one is long."""

    def theirs(n: int) -> tuple[Tensor, float]:
        made = scheduler("DPMSolverMultistepScheduler", solver_order=3)
        made.set_timesteps(n)
        grid = logsnr_grid(n).float()
        # The levels are its to choose; on equal steps in log-SNR to almost clean data its order can be measured.
        made.sigmas = grid
        level = preserving(float(grid[0]))
        unit = quantiles(80.0) * level.alpha / level.sigma
        return by_sigma(made, preserving, unit, vp_eps)[0], 80.0

    assert slope(theirs) == pytest.approx(2, abs=0.3)


def vp_eps(x: Tensor, noise: float) -> Tensor:
    """The oracle's eps on the variance-preserving path."""
    level = preserving(noise)
    return (x - level.alpha * ORACLE(x, level)) / level.sigma


def test_diffusers_ddim_linspace_steps_to_the_wrong_timesteps() -> None:
    """It steps back by 1000 // n where its timesteps are 999 / (n - 1) apart, so that more steps do not help."""
    made = scheduler("DDIMScheduler", clip_sample=False, timestep_spacing="linspace")
    times = [int(t) for t in made.timesteps]
    assert sum(t - 1000 // STEPS != s for t, s in itertools.pairwise(times)) >= STEPS - 2
    made.set_timesteps(600)
    squared = float(made.alphas_cumprod[int(made.timesteps[0])])
    noise = math.sqrt((1 - squared) / squared)
    unit = quantiles(noise) * preserving(noise).alpha / preserving(noise).sigma
    exact = ORACLE.flow(quantiles(noise), Level(1.0, noise), CLEAN)
    theirs, levels = by_timestep(made, unit, vp_eps)
    mine = ours("ddim", levels, unit, ORACLE)
    error, our_error = (float((x0 - exact).square().mean().sqrt()) for x0 in (theirs, mine))
    assert our_error < 0.01
    assert error > 10 * our_error


def test_azula_reab_takes_one_noise_for_another_and_is_of_order_one() -> None:
    """Its step has sigma_t where its own docstring has the noise at s; exponential Adams-Bashforth here has order 3."""
    samplers = need_module("azula.sample")
    noises, denoisers = import_module("azula.noise"), import_module("azula.denoise")

    class Exact(denoisers.Denoiser):
        schedule = noises.VESchedule(1e-5, 80.0)

        def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> Any:
            return denoisers.DiracPosterior(ORACLE(x_t, Level(1.0, float(self.schedule(t)[1]))))

    def theirs(n: int) -> tuple[Tensor, float]:
        made = samplers.REABSampler(Exact(), order=3, steps=n, silent=True, dtype=torch.float64)
        return made(quantiles(80.0)), 80.0

    def mine(n: int) -> tuple[Tensor, float]:
        return ours("deis", levels_of(logsnr_grid(n)), quantiles(80.0) / 80, ORACLE), 80.0

    assert slope(theirs) == pytest.approx(1, abs=0.3)
    assert slope(mine) == pytest.approx(3, abs=0.3)
