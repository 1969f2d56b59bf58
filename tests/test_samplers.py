"""Every sampler YAML against the oracle: no list of samplers here, a new YAML is measured by being there."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from diffsweep.diffusion import CLEAN, GaussianMixture, Level, Sampler, Schedule
from diffsweep.diffusion.schedules import VE, Cosine, Rectified, linear_betas
from diffsweep.diffusion.solvers import Euler
from diffsweep.diffusion.spacing import Karras, LogSNR, Time

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


DETERMINISTIC = [name for name in SAMPLERS if sampler(name).churn == 0]
STOCHASTIC = [name for name in SAMPLERS if sampler(name).churn > 0]


def order(name: str, chosen: Schedule) -> float:
    """The slope of log error over log steps against the exact probability flow, over a range of small steps."""
    steps = np.array([64, 128, 256, 512])
    errors = []
    for n in steps:
        probe = sampler(name)
        probe = sampler(name, nfe=probe.solver.nfe(int(n)))
        assert probe.steps == n
        start = probe.levels(chosen)[0]
        exact = ORACLE.flow(QUANTILES * start.sigma, start, CLEAN)
        x0 = probe(ORACLE, QUANTILES, schedule=chosen)
        errors.append(float((x0 - exact).square().mean().sqrt()))
    return -float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


@pytest.mark.parametrize("schedule_name", SCHEDULES)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_the_measured_order_is_the_declared_one(name: str, schedule_name: str) -> None:
    measured = order(name, schedule(schedule_name))
    assert measured == pytest.approx(sampler(name).solver.order, abs=0.3)


@pytest.mark.parametrize("schedule_name", SCHEDULES)
@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_stochastic_sampler_ends_in_the_exact_marginal(name: str, schedule_name: str) -> None:
    n = 4000
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    x0 = sampler(name, nfe=500)(ORACLE, noise, schedule=schedule(schedule_name), generator=generator)
    p = ORACLE.cdf(x0.flatten(), CLEAN).sort().values
    distance = float((p - (torch.arange(n) + 0.5) / n).abs().max()) + 0.5 / n
    # 1.63 / sqrt(n) is the 1 % point of the Kolmogorov-Smirnov statistic.
    assert distance < 1.63 / math.sqrt(n)


@pytest.mark.parametrize("name", SAMPLERS)
def test_on_the_same_noise_levels_every_schedule_gives_the_same_sample(name: str) -> None:
    noises = [20.0, 6.0, 2.0, 1.0, 0.5, 0.2, 0.05]

    class Given:
        def __call__(self, schedule: Schedule, steps: int) -> list[Level]:
            return [*(schedule.level(schedule.time(-2 * math.log(noise))) for noise in noises), CLEAN]

    probe = sampler(name)
    samples = []
    for schedule_name in SCHEDULES:
        given = Sampler(probe.solver, Given(), nfe=probe.solver.nfe(len(noises)), churn=probe.churn)
        chosen = schedule(schedule_name)
        start = given.levels(chosen)[0]
        # The same point of the path: x / alpha is what must agree.
        noise = QUANTILES * start.alpha / start.sigma
        generator = torch.Generator().manual_seed(1)
        samples.append(given(ORACLE, noise, schedule=chosen, generator=generator))
    for other in samples[1:]:
        torch.testing.assert_close(other, samples[0], rtol=1e-7, atol=1e-7)


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
    assert len(steps) == probe.steps == len(probe.levels(Cosine())) - 1
    assert steps[-1].level.sigma == 0
    assert all(step.x.isfinite().all() for step in steps)
    assert [step.index for step in steps] == list(range(probe.steps))


@pytest.mark.parametrize("nfe", [0, -3, 2.5, True, "many"])
def test_impossible_costs_are_refused(nfe: object) -> None:
    with pytest.raises(ValueError, match=f"sampler.nfe={nfe} must be a whole number"):
        Sampler(Euler(), Time(), nfe=nfe)  # pyright: ignore[reportArgumentType]


def test_euler_with_churn_one_is_ddpm() -> None:
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
    got = Sampler(Euler(), Two(), 1, churn=1.0)(
        lambda x, level, condition=None: torch.full_like(x, x0), noise, schedule=chosen, generator=generator
    )
    assert float(got.std()) == pytest.approx(deviation, rel=0.01)
    assert float(got.mean()) == pytest.approx(mean_x * x + mean_x0 * x0, abs=5 * deviation / math.sqrt(n))


def test_infinite_churn_denoises_fully_and_noises_again() -> None:
    probe = Sampler(Euler(), LogSNR(), 3, churn=math.inf)
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


@pytest.mark.parametrize("spacing", [Time(), LogSNR(), Karras()])
@pytest.mark.parametrize("chosen", [Cosine(), VE(), Rectified(), linear_betas()])
def test_levels_fall_to_clean_data(spacing: Time | LogSNR | Karras, chosen: Schedule) -> None:
    for steps in (1, 2, 5, 1000):
        levels = spacing(chosen, steps)
        noises = [float(level.noise) for level in levels]
        assert len(levels) == steps + 1
        assert noises == sorted(noises, reverse=True)
        assert len(set(noises)) == steps + 1
        assert levels[-1] == CLEAN


def test_heun_refuses_to_start_at_pure_noise() -> None:
    with pytest.raises(ValueError, match=r"cannot start from pure noise.*choose sampler/spacing=karras"):
        sampler("heun", "sampler/spacing=time").check(Rectified())
    sampler("heun").check(Rectified())


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_state_type_stays_itself_and_finite(name: str, dtype: torch.dtype) -> None:
    x0 = sampler(name)(ORACLE, QUANTILES.to(dtype), schedule=Cosine())
    assert x0.dtype == dtype
    assert x0.isfinite().all()
