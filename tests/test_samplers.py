"""Every sampler YAML against the oracle: no list of samplers here, a new YAML is measured by being there."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from diffsweep.diffusion import CLEAN, GaussianMixture, Level, Sampler, Schedule
from diffsweep.diffusion.noise import SDE, Ancestral, Anew, Noise
from diffsweep.diffusion.schedules import VE, Cosine, Rectified, linear_betas
from diffsweep.diffusion.solvers import Euler
from diffsweep.diffusion.spacing import Beta, Given, Karras, Leading, Linspace, LogSNR, Spacing, Time

CONF = Path(__file__).parent.parent / "conf"
SAMPLERS = sorted(path.stem for path in (CONF / "sampler").glob("*.yaml"))
SCHEDULES = sorted(path.stem for path in (CONF / "schedule").glob("*.yaml"))
ORACLE = GaussianMixture.of([0.3, 0.7], [[-1.0], [0.8]], [0.3, 0.5])
QUANTILES = torch.special.ndtri((torch.arange(400, dtype=torch.float64) + 0.5) / 400)[:, None]


def sampler(name: str, *overrides: str, nfe: object = 20) -> Sampler:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose(overrides=[f"+sampler={name}", f"sampler.nfe={nfe}", *overrides]).sampler)


def schedule(name: str) -> Schedule:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose(overrides=[f"+schedule={name}"]).schedule)


MEASURED = ["cosine", "linear", "rectified", "ve"]
DETERMINISTIC = [name for name in SAMPLERS if sampler(name).deterministic(Cosine())]
STOCHASTIC = [name for name in SAMPLERS if name not in DETERMINISTIC]


def with_steps(probe: Sampler, steps: int) -> Sampler:
    found = dataclasses.replace(probe, nfe=probe.solver.nfe(probe.noise.count(steps)))
    assert found.steps == steps
    return found


def errors(probe: Sampler, chosen: Schedule) -> tuple[float, float]:
    """Root mean square distance from the exact probability flow at the last level with noise, and at clean data."""
    x = QUANTILES[::4]
    levels = probe.levels(chosen)
    *_, before, end = probe.trajectory(ORACLE, x, schedule=chosen)
    return tuple(  # pyright: ignore[reportReturnType]
        float((step.x - ORACLE.flow(x * levels[0].sigma, levels[0], step.level)).square().mean().sqrt())
        for step in (before, end)
    )


def refused(probe: Sampler, chosen: Schedule) -> bool:
    try:
        probe.check(chosen)
    except ValueError as error:
        return "cannot start from pure noise" in str(error)
    return False


@pytest.mark.parametrize("schedule_name", MEASURED)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_the_measured_order_is_the_declared_one(name: str, schedule_name: str) -> None:
    """The slope of log error over log steps; the last step, to clean data, has a fixed length and its own bound."""
    chosen, probe = schedule(schedule_name), sampler(name)
    if refused(probe, chosen):
        assert schedule_name == "rectified", "at least three schedules are needed to measure a sampler"
        return
    steps = [128, 256, 512] if probe.solver.order <= 2 else [32, 64, 128, 256]
    found = [errors(with_steps(probe, n), chosen) for n in steps]
    measured = -float(np.polyfit(np.log(steps), np.log([before for before, _ in found]), 1)[0])
    assert measured == pytest.approx(probe.solver.order, abs=0.3)
    for n, (before, end) in zip(steps, found, strict=True):
        last = with_steps(probe, n).levels(chosen)[-2].noise
        # Near the data eps is proportional to the noise, with the score as factor, of up to 10 here.
        assert end < 1.1 * before + 10 * last**2 / 2


@pytest.mark.parametrize("schedule_name", MEASURED)
@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_stochastic_sampler_ends_in_the_exact_marginal(name: str, schedule_name: str) -> None:
    n, chosen = 4000, schedule(schedule_name)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    if isinstance(sampler(name).noise, Anew):
        # Exact for networks trained by consistency, which give the flow's end point instead of the mean.
        probe, denoise = sampler(name, nfe=3), lambda x, level, condition=None: ORACLE.flow(x, level, CLEAN)
    else:
        probe, denoise = with_steps(sampler(name), 250), ORACLE
    x0 = probe(denoise, noise, schedule=chosen, generator=generator)
    p = ORACLE.cdf(x0.flatten(), CLEAN).sort().values
    distance = float((p - (torch.arange(n) + 0.5) / n).abs().max()) + 0.5 / n
    # 1.63 / sqrt(n) is the 1 % point of the Kolmogorov-Smirnov statistic.
    assert distance < 1.63 / math.sqrt(n)


@pytest.mark.parametrize("name", SAMPLERS)
def test_on_the_same_noise_levels_every_schedule_gives_the_same_sample(name: str) -> None:
    noises = [20.0, 6.0, 2.0, 1.0, 0.5, 0.2, 0.05]
    probe = sampler(name)
    if getattr(probe.solver, "variable", "") == "time":
        pytest.skip("what it extrapolates is a function of the schedule's time")
    given = with_steps(dataclasses.replace(probe, spacing=Given(noises)), len(noises))
    samples = []
    for schedule_name in SCHEDULES:
        chosen = schedule(schedule_name)
        start = given.levels(chosen)[0]
        if start.noise < 19.9 or chosen.level(0.0).noise > noises[-1]:
            continue
        # The same point of the path: x / alpha is what must agree.
        noise = QUANTILES * start.alpha / start.sigma
        generator = torch.Generator().manual_seed(1)
        samples.append(given(ORACLE, noise, schedule=chosen, generator=generator))
    assert len(samples) >= 6
    for other in samples[1:]:
        torch.testing.assert_close(other, samples[0], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("schedule_name", SCHEDULES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_serves_every_schedule_or_says_what_to_choose(name: str, schedule_name: str) -> None:
    chosen, probe = schedule(schedule_name), sampler(name)
    if refused(probe, chosen):
        assert chosen.level(1.0).alpha == 0
        return
    x0 = probe(ORACLE, QUANTILES, schedule=chosen, generator=torch.Generator().manual_seed(0))
    assert x0.isfinite().all()
    assert 0.3 < float(x0.std()) < 3


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("nfe", [1, 2, 7, 20, 1000])
def test_the_cost_is_what_it_says(name: str, nfe: int) -> None:
    calls = 0

    def counting(x: torch.Tensor, level: Level, condition: torch.Tensor | None = None) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return ORACLE(x, level)

    probe = sampler(name, nfe=nfe)
    steps = list(probe.trajectory(counting, QUANTILES[:4], schedule=Cosine()))
    assert calls == probe.nfe_used <= nfe
    assert len(steps) == len(probe.legs(Cosine()))
    assert probe.steps == len(probe.levels(Cosine())) - 1
    assert steps[-1].level.sigma == 0
    assert all(step.x.isfinite().all() for step in steps)
    assert [step.index for step in steps] == list(range(len(steps)))


@pytest.mark.parametrize("nfe", [0, -3, 2.5, True, "many"])
def test_impossible_costs_are_refused(nfe: object) -> None:
    with pytest.raises(ValueError, match=f"sampler.nfe={nfe} must be a whole number"):
        Sampler(Euler(), Time(), nfe=nfe)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("noise", [SDE(1.0), Ancestral(1.0)])
def test_euler_with_all_of_the_noise_is_ddpm(noise: Noise) -> None:
    """One step's mean and deviation against the posterior q(x_s | x_t, x0) of DDPM (arXiv 2006.11239, eq. 7)."""
    chosen = linear_betas()
    t, s = chosen.level(0.6), chosen.level(0.58)
    beta = 1 - (t.alpha / s.alpha) ** 2
    mean_x0 = s.alpha * beta / t.sigma**2
    mean_x = (t.alpha / s.alpha) * s.sigma**2 / t.sigma**2
    deviation = math.sqrt(beta) * s.sigma / t.sigma

    class Two:
        def __call__(self, schedule: Schedule, steps: int) -> list[Level]:
            return [t, s]

    x, x0, n = 0.7, -0.2, 200_000
    generator = torch.Generator().manual_seed(0)
    noise = torch.full((n, 1), x / t.sigma, dtype=torch.float64)
    got = Sampler(Euler(), Two(), 1, noise)(
        lambda x, level, condition=None: torch.full_like(x, x0), noise, schedule=chosen, generator=generator
    )
    assert float(got.std()) == pytest.approx(deviation, rel=0.01)
    assert float(got.mean()) == pytest.approx(mean_x * x + mean_x0 * x0, abs=5 * deviation / math.sqrt(n))


def test_anew_denoises_fully_and_noises_again() -> None:
    probe = Sampler(Euler(), LogSNR(), 3, Anew())
    generator, again = (torch.Generator().manual_seed(5) for _ in range(2))
    steps = list(probe.trajectory(ORACLE, QUANTILES, schedule=VE(), generator=generator))
    z = torch.randn(QUANTILES.shape, generator=again, dtype=torch.float64)
    torch.testing.assert_close(steps[0].x, steps[0].x0 + steps[0].level.sigma * z)


def test_each_sample_depends_on_its_own_generator_only() -> None:
    def run(rows: list[int]) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(row) for row in rows]
        noise = torch.stack([torch.randn(1, generator=g, dtype=torch.float64) for g in generators])
        return sampler("ddpm")(ORACLE, noise, schedule=Cosine(), generator=generators)

    together = run([0, 1, 2, 3])
    torch.testing.assert_close(run([2]), together[2:3])
    torch.testing.assert_close(run([3, 1]), together[[3, 1]])


SPACINGS = [Time(), Time(2.0), Leading(), Linspace(), Beta(), LogSNR(), LogSNR(1.2), Karras(), Given()]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("chosen", [Cosine(), VE(), Rectified(), linear_betas()])
def test_levels_fall_to_clean_data(spacing: Spacing, chosen: Schedule) -> None:
    for steps in (1, 2, 5, 1000):
        levels = spacing(chosen, steps)
        noises = [float(level.noise) for level in levels]
        assert len(levels) == steps + 1
        assert noises == sorted(noises, reverse=True)
        assert len(set(noises)) == steps + 1
        assert levels[-1] == CLEAN
        for level in levels[:-1]:
            if level.alpha:
                on_path = chosen.level(chosen.time(level.logsnr))
                assert (on_path.alpha, on_path.sigma) == pytest.approx((level.alpha, level.sigma), rel=1e-6)


def test_heun_refuses_to_start_at_pure_noise() -> None:
    with pytest.raises(ValueError, match=r"cannot start from pure noise.*choose sampler/spacing=karras"):
        sampler("heun", "sampler/spacing=time").check(Rectified())
    sampler("heun").check(Rectified())


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_state_type_stays_itself_and_finite(name: str, dtype: torch.dtype) -> None:
    x0 = sampler(name)(ORACLE, QUANTILES.to(dtype), schedule=Cosine(), generator=torch.Generator().manual_seed(0))
    assert x0.dtype == dtype
    assert x0.isfinite().all()
