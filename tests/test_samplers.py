"""Every sampler YAML against the oracle: no list of samplers here, a new YAML is measured by being there."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from diffsweep.diffusion import CLEAN, Condition, Denoiser, GaussianMixture, Level, Sampler, Schedule, Solver
from diffsweep.diffusion.noise import SDE, Ancestral, Anew, Churn, Langevin, Leg, Noise, Resample, Restart
from diffsweep.diffusion.sampler_check import check_sampler
from diffsweep.diffusion.schedules import VE, Cosine, Rectified, linear_betas
from diffsweep.diffusion.solvers import Adaptive, DPMpp2M, Euler, Heun, Multistep
from diffsweep.diffusion.spacing import Beta, Given, Karras, Leading, Linspace, LogSNR, Optimal, Spacing, Time
from diffsweep.diffusion.target import V
from diffsweep.mistakes import spell
from prerequisites import need_module

CONF = Path(__file__).parent.parent / "conf"
SAMPLERS = sorted(path.stem for path in (CONF / "sampler").glob("*.yaml"))
# But that of a model at hand, which is one of the others.
SCHEDULES = sorted({path.stem for path in (CONF / "schedule").glob("*.yaml")} - {"imported"})
ORACLE = GaussianMixture.of([0.3, 0.7], [[-1.0], [0.8]], [0.3, 0.5])
QUANTILES = torch.special.ndtri((torch.arange(400, dtype=torch.float64) + 0.5) / 400)[:, None]


@functools.cache
def plain() -> DictConfig:
    # In one go: to compose is slow, and whoever collects the tests waits for it.
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(overrides=[f"+sampler@{name}={name}" for name in SAMPLERS])


@functools.cache
def sampler(name: str, *overrides: str, nfe: object = None) -> Sampler:
    if not overrides and nfe is None:
        return instantiate(OmegaConf.create({"sampler": plain()[name]}).sampler)
    cost = [] if nfe is None else [f"sampler.nfe={nfe}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose(overrides=[f"+sampler={name}", *cost, *overrides]).sampler)


@functools.cache
def schedule(name: str) -> Schedule:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose(overrides=[f"+schedule={name}"]).schedule)


MEASURED = ["cosine", "linear", "rectified", "ve"]
ADAPTIVE = [name for name in SAMPLERS if isinstance(sampler(name).solver, Adaptive)]
STEPPED = [name for name in SAMPLERS if name not in ADAPTIVE]
DETERMINISTIC = [name for name in STEPPED if sampler(name).deterministic(Cosine())]
STOCHASTIC = [name for name in STEPPED if name not in DETERMINISTIC]


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
        check_sampler(probe, chosen)
    except ValueError as error:
        return "cannot start from pure noise" in str(error)
    return False


# Its levels crowd at both ends, which is best at few calls: with more of them the longest step shrinks more slowly than
# their number grows. The order of its solver is that of adams_bashforth_v.
DENSE_ENDS = ("recommended",)


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
    if name in DENSE_ENDS:
        assert 2 < measured < probe.solver.order + 0.3
    else:
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


@pytest.mark.parametrize("schedule_name", MEASURED)
@pytest.mark.parametrize("name", ADAPTIVE)
def test_an_adaptive_sampler_is_as_exact_as_it_is_asked_to_be(name: str, schedule_name: str) -> None:
    chosen, found = schedule(schedule_name), []
    for allowed in (1e-3, 1e-4, 1e-5):
        overrides = [f"sampler.solver.{key}={allowed}" for key in ("relative", "absolute")]
        before, _ = errors(sampler(name, *overrides, nfe=1000), chosen)
        # Between the modes of the mixture the flow amplifies errors, here some tenfold.
        assert before < 20 * allowed
        found.append(before)
    assert found[0] > 3 * found[1] > 9 * found[2]


@pytest.mark.parametrize("name", ADAPTIVE)
def test_an_adaptive_sampler_keeps_to_its_ceiling_and_rows_to_themselves(name: str) -> None:
    calls = 0

    def counting(x: torch.Tensor, level: Level, condition: Condition | None = None) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return ORACLE(x, level)

    probe = sampler(name)
    together = probe(counting, QUANTILES, schedule=Cosine())
    assert calls <= probe.nfe_used <= probe.nfe
    torch.testing.assert_close(probe(ORACLE, QUANTILES[7:8], schedule=Cosine()), together[7:8])


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_sample_that_needs_more_than_is_allowed_costs_itself_only(name: str) -> None:
    calls = 0

    def easy_and_hard(x: torch.Tensor, level: Level, condition: Condition | None = None) -> torch.Tensor:
        nonlocal calls
        calls += 1
        # The last row's denoiser is as rough as a bad network's.
        return (
            torch.cat([ORACLE(x[:-1], Level(level.alpha[:-1], level.sigma[:-1])), torch.sin(400 * x[-1:])])
            if (isinstance(level.sigma, torch.Tensor))
            else ORACLE(x, level)
        )

    probe, x = sampler(name), QUANTILES[::40]
    with pytest.warns(UserWarning, match=r"^1 of 10 samples need more than nfe=200 network evaluations"):
        found = probe(easy_and_hard, x, schedule=Cosine())
    assert calls <= probe.nfe
    assert found.isfinite().all()
    torch.testing.assert_close(found[:-1], probe(ORACLE, x[:-1], schedule=Cosine()))


def test_at_its_own_cost_no_sampler_leaves_the_data_on_any_schedule_but_one() -> None:
    off = set()
    for name, schedule_name in itertools.product(SAMPLERS, SCHEDULES):
        try:
            line = check_sampler(sampler(name), schedule(schedule_name))
        except ValueError as error:
            line = str(error)
        if line is not None:
            assert "\n" not in line
            off.add((name, schedule_name))
    assert off == {("deis_tab", "laplace")}


def test_deis_on_laplace_is_refused_with_what_to_choose() -> None:
    """At its default cost it ended at |x| = 2,000, the data at 1.4, in a cell that looked better than DDIM's."""
    with pytest.raises(ValueError, match=r"^sampler.nfe=20 is too few .* reach .* choose sampler.nfe=30 or more$"):
        check_sampler(sampler("deis_tab"), schedule("laplace"))
    assert check_sampler(sampler("deis_tab", nfe=30), schedule("laplace")) is None
    with pytest.raises(ValueError, match=r"^validation.sampler.nfe=20 is .* choose validation.sampler.nfe=30 or more$"):
        check_sampler(sampler("deis_tab"), schedule("laplace"), "validation.sampler")


def test_too_few_steps_of_heun_are_warned_of() -> None:
    line = check_sampler(sampler("heun", nfe=3), schedule("cosine"))
    assert line is not None
    assert line.endswith("choose sampler.nfe=10 or more")
    assert check_sampler(sampler("heun"), schedule("cosine")) is None


@pytest.mark.parametrize("name", STEPPED)
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


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_serves_every_schedule_or_says_what_to_choose(name: str) -> None:
    probe = sampler(name)
    for schedule_name in SCHEDULES:
        chosen = schedule(schedule_name)
        if refused(probe, chosen):
            assert chosen.level(1.0).alpha == 0
            continue
        x0 = probe(ORACLE, QUANTILES[::4], schedule=chosen, generator=torch.Generator().manual_seed(0))
        assert x0.isfinite().all(), schedule_name
        # Polynomials in time are at the mercy of the schedule: where time hardly moves they extrapolate wildly.
        if getattr(probe.solver, "variable", "") != "time":
            assert 0.3 < float(x0.std()) < 3, schedule_name


@pytest.mark.parametrize("name", STEPPED)
@pytest.mark.parametrize("nfe", [1, 2, 7, 20, 1000])
def test_the_cost_is_what_it_says(name: str, nfe: int) -> None:
    calls = 0

    def counting(x: torch.Tensor, level: Level, condition: Condition | None = None) -> torch.Tensor:
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
    with pytest.raises(ValueError, match=f"^nfe={spell(nfe)} must be a whole number"):
        Sampler(Euler(), Time(), nfe=nfe)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("policy", [SDE(1.0), Ancestral(1.0)])
def test_euler_with_all_of_the_noise_is_ddpm(policy: Noise) -> None:
    """One step's mean and deviation against the posterior q(x_s | x_t, x0) of DDPM (arXiv 2006.11239, eq. 7)."""
    chosen = linear_betas()
    t, s = chosen.level(0.6), chosen.level(0.58)
    beta = 1 - (t.alpha / s.alpha) ** 2
    mean_x0 = s.alpha * beta / t.sigma**2
    mean_x = (t.alpha / s.alpha) * s.sigma**2 / t.sigma**2
    deviation = math.sqrt(beta) * s.sigma / t.sigma

    class Two:
        def __call__(self, schedule: Schedule, steps: int) -> list[Level]:
            return [t, s, CLEAN]

    x, x0, n = 0.7, -0.2, 200_000
    generator = torch.Generator().manual_seed(0)
    noise = torch.full((n, 1), x / t.sigma, dtype=torch.float64)
    sampling = Sampler(Euler(), Two(), 2, policy).trajectory(
        lambda x, level, condition=None: torch.full_like(x, x0), noise, schedule=chosen, generator=generator
    )
    got = next(sampling).x
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


SPACINGS = [
    Time(),
    Time(power=2.0),
    Leading(),
    Linspace(),
    Beta(),
    LogSNR(),
    LogSNR(1.2),
    Karras(),
    Given(),
    Optimal([[50.0, 2.0, 0.1], [80.0, 8.0, 3.0, 1.0, 0.5, 0.03]]),
]


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
    with pytest.raises(ValueError, match=r"cannot start from pure noise.*choose sampler/spacing=karras.*first=0.999"):
        check_sampler(sampler("heun", "sampler/spacing=time"), Rectified())
    check_sampler(sampler("heun"), Rectified())
    check_sampler(sampler("heun", "sampler/spacing=time", "sampler.spacing.first=0.999"), Rectified())
    check_sampler(sampler("heun_flow"), Rectified())


def test_heun_in_v_is_the_trapezoid_of_rectified_flow() -> None:
    """Against one hand-written step of dx / dt = v on straight paths, from exactly pure noise."""
    x = QUANTILES
    v = (x - ORACLE(x, Level(0.0, 1.0))) / 1.0
    moved = x + (0.5 - 1.0) * v
    there = (moved - ORACLE(moved, Level(0.5, 0.5))) / 0.5
    expected = x + (0.5 - 1.0) * (v + there) / 2
    step = next(sampler("heun_flow", nfe=3).trajectory(ORACLE, x, schedule=Rectified()))
    torch.testing.assert_close(step.x, expected)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_state_type_stays_itself_and_finite(name: str, dtype: torch.dtype) -> None:
    x0 = sampler(name)(ORACLE, QUANTILES.to(dtype), schedule=Cosine(), generator=torch.Generator().manual_seed(0))
    assert x0.dtype == dtype
    assert x0.isfinite().all()


@pytest.mark.parametrize(
    "policy", [SDE(0.5), Ancestral(0.5), Churn(20, 0.05, 50.0), Restart(), Langevin(), Resample(3, 2), Anew()]
)
def test_legs_land_where_they_can_be_climbed_from(policy: Noise) -> None:
    """Landings lie at or below what is aimed for, climbs go up, the count is as promised, and the end is clean data."""
    for steps in (1, 2, 3, 20):
        levels = Karras()(Cosine(), steps)
        legs = policy.legs(levels)
        assert len(legs) == policy.count(steps)
        assert legs[-1].u == CLEAN
        assert all(leg.u.noise <= leg.s.noise * (1 + 1e-12) <= leg.t.noise * (1 + 1e-12) for leg in legs)
        assert all(before.u.noise <= after.t.noise * (1 + 1e-12) for before, after in itertools.pairwise(legs))
        assert legs[0].t.noise >= levels[0].noise


def test_restarts_climb_to_where_they_say() -> None:
    legs = Restart(0.06, 0.3, steps=3, repeats=2).legs(Karras()(Cosine(), 20))
    climbs = [(before.u.noise, after.t.noise) for before, after in itertools.pairwise(legs) if before.u != after.t]
    assert len(climbs) == 2
    for low, high in climbs:
        assert 0.03 < low <= 0.06
        assert high == pytest.approx(0.3)


def test_ancestral_noise_is_ddims_eta() -> None:
    """Against sigma of DDIM (arXiv 2010.02502, eq. 16) and the share of eps in its eq. 12."""
    t, s = linear_betas().level(0.6), linear_betas().level(0.5)
    for eta in (0.2, 0.7, 1.0):
        (leg, *_) = Ancestral(eta).legs([t, s, CLEAN])
        sigma = eta * s.sigma / t.sigma * math.sqrt(1 - (t.alpha / s.alpha) ** 2)
        assert leg.u.sigma == pytest.approx(math.sqrt(s.sigma**2 - sigma**2))
        assert leg.u.alpha == s.alpha


@pytest.mark.parametrize("name", STEPPED)
@pytest.mark.parametrize("schedule_name", ["rectified", "ve", "zero_snr"])
def test_half_precision_networks_at_the_ends_of_schedules(name: str, schedule_name: str) -> None:
    chosen, probe = schedule(schedule_name), sampler(name)
    if refused(probe, chosen):
        return
    dtype = torch.bfloat16

    class Half(torch.nn.Module):
        def forward(self, x: torch.Tensor, logsnr: torch.Tensor, condition: Condition | None = None) -> torch.Tensor:
            return (x.to(dtype) * 0.1).tanh()

    denoiser = Denoiser(Half(), chosen, V(), 1.0)
    for state in (dtype, torch.float32, torch.float64):
        x0 = probe(denoiser, QUANTILES.to(state), schedule=chosen, generator=torch.Generator().manual_seed(0))
        assert x0.dtype == state
        assert x0.isfinite().all()


def test_beta_spacing_is_made_of_the_quantiles_of_a_beta_distribution() -> None:
    stats = need_module("scipy.stats")
    for a, b in ((0.6, 0.6), (2.0, 0.5), (1.0, 1.0)):
        levels = Beta(a, b)(Cosine(), 10)
        times = [Cosine().time(level.logsnr) for level in levels[:-1]]
        assert times == pytest.approx(list(stats.beta.ppf(1 - np.arange(10) / 10, a, b)), abs=1e-3)


def test_spacings_against_their_formulas() -> None:
    """DDIM's quadratic, leading, linspace (arXiv 2305.08891, table 2), EDM's eq. 5 and an interpolated list."""

    def times(spacing: Spacing) -> list[float]:
        return [float(Cosine().time(level.logsnr)) for level in spacing(Cosine(), 5)[:-1]]

    assert times(Time()) == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert times(Time(first=0.9)) == pytest.approx([0.9, 0.72, 0.54, 0.36, 0.18])
    assert times(Time(power=2.0)) == pytest.approx([1, 0.64, 0.36, 0.16, 0.04])
    assert times(Leading(0.001)) == pytest.approx([0.001 + 0.999 * share for share in (0.8, 0.6, 0.4, 0.2, 0.0)])
    assert times(Linspace(0.001)) == pytest.approx([1, 0.75025, 0.5005, 0.25075, 0.001])
    noises = [level.noise for level in Karras(7.0, 0.002, 80.0)(VE(), 3)[:-1]]
    assert noises == pytest.approx([80, ((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7, 0.002])
    assert [level.noise for level in Given([10, 1, 0.01])(VE(), 3)[:-1]] == pytest.approx([10, 1, 0.01])
    assert [level.noise for level in Given([10, 1, 0.01])(VE(), 5)[:-1]] == pytest.approx([10, 10**0.5, 1, 0.1, 0.01])


def test_a_restarted_solver_forgets() -> None:
    """A multistep method must not extrapolate across a climb: with memory it would divide by a negative step."""
    probe = Sampler(DPMpp2M(), Karras(), 40, Restart(steps=4, repeats=3))
    x0 = probe(ORACLE, QUANTILES, schedule=Cosine(), generator=torch.Generator().manual_seed(0))
    plain = Sampler(DPMpp2M(), Karras(), 40)(ORACLE, QUANTILES, schedule=Cosine())
    assert float((x0.sort(0).values - plain.sort(0).values).abs().mean()) < 0.1


def test_a_trajectory_knows_nothing_of_the_one_before() -> None:
    class Hoarder:
        """A careless solver, that changes what its plan gave it."""

        order = 1

        def nfe(self, steps: int) -> int:
            return steps

        def plan(self, legs: Sequence[Leg], schedule: Schedule) -> list[torch.Tensor]:
            return []

        def aim(
            self,
            denoise: Callable[[torch.Tensor, Level], torch.Tensor],
            x: torch.Tensor,
            t: Level,
            s: Level,
            memory: list[torch.Tensor],
        ) -> tuple[torch.Tensor, list[torch.Tensor]]:
            memory.append(denoise(x, t))
            return torch.stack(memory).mean(0), memory

    probe, chosen = Sampler(Hoarder(), LogSNR(), 5), Cosine()
    first, again = (probe(ORACLE, QUANTILES, schedule=chosen) for _ in range(2))
    assert torch.equal(first, again)


def test_what_is_random_is_not_called_deterministic() -> None:
    assert not Sampler(Euler(), Karras(noise_max=10.0), 1, Churn()).deterministic(Cosine())
    assert Sampler(Euler(), Karras(), 1, Churn(amount=0.0)).deterministic(Cosine())
    assert Sampler(Euler(), Karras(), 5, Ancestral(0.0)).deterministic(Cosine())


def test_a_learned_spread_scales_the_fresh_noise() -> None:
    class Sure:
        def __call__(self, x: torch.Tensor, level: Level, condition: Condition | None = None) -> torch.Tensor:
            return ORACLE(x, level)

        def spread(self, t: Level, s: Level) -> torch.Tensor:
            return torch.zeros(1, dtype=torch.float64)

    legs = Sampler(Euler(), LogSNR(), 10, SDE(1.0)).trajectory(Sure(), QUANTILES, schedule=Cosine())
    x, level = QUANTILES, LogSNR()(Cosine(), 10)[0]
    x = x * level.sigma
    for step in legs:
        expected = step.level.alpha * step.x0
        noise = (step.level.noise / level.noise) ** 2
        if step.level.sigma:
            expected = expected + step.level.alpha * noise * (x / level.alpha - step.x0)
        torch.testing.assert_close(step.x, expected)
        x, level = step.x, step.level


@pytest.mark.parametrize("solver", [Heun(), Multistep("eps", "noise", 4)])
def test_nothing_is_read_back_from_the_device_in_the_loop(solver: Solver) -> None:
    """On a meta device every read-back (.item(), a truth value) raises."""

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor, logsnr: torch.Tensor, condition: Condition | None = None) -> torch.Tensor:
            return x * 0.1

    denoiser = Denoiser(Net(), Cosine(), V(), 1.0)
    x = torch.empty(4, 2, device="meta")
    assert Sampler(solver, LogSNR(), 20)(denoiser, x, schedule=Cosine()).shape == (4, 2)


def test_optimal_levels_are_the_tables_and_between_them_a_mixture() -> None:
    tables = [[80.0, 1.0, 0.05], [80.0, 10.0, 2.0, 1.0, 0.2, 0.02]]
    for table in tables:
        found = [level.noise for level in Optimal(tables)(VE(1e-3, 100), len(table))[:-1]]
        assert found == pytest.approx(table)
    low, between, high = (Optimal(tables)(VE(1e-3, 100), steps)[-2].noise for steps in (3, 4, 6))
    assert low > between > high
    assert between == pytest.approx(0.05 * (0.02 / 0.05) ** (math.log(4 / 3) / math.log(2)))


@pytest.mark.parametrize("nfe", [5, 7, 10, 20, 50])
def test_fitted_levels_serve_a_mixture_that_they_were_not_fitted_to(nfe: int) -> None:
    exact = ORACLE.flow(QUANTILES * 80.0, Level(1.0, 80.0), CLEAN)

    def error(spacing: str) -> float:
        x0 = sampler("unipc", f"sampler/spacing={spacing}", nfe=nfe)(ORACLE, QUANTILES, schedule=VE())
        return float((x0 - exact).square().mean().sqrt())

    assert error("optimal") < 0.7 * min(error("logsnr"), error("karras"), error("time"))


@dataclasses.dataclass(frozen=True)
class Copying:
    """A noise policy of somebody's own, which makes its levels anew: no leg starts at the very object before it."""

    def legs(self, levels: Sequence[Level]) -> list[Leg]:
        def again(level: Level) -> Level:
            return Level(level.alpha, level.sigma)

        return [Leg(again(t), again(s), again(s)) for t, s in itertools.pairwise(levels)]

    def count(self, steps: int) -> int:
        return steps


def test_levels_are_told_apart_by_their_values() -> None:
    plain = Sampler(Euler(), Time(), nfe=6)
    copying = dataclasses.replace(plain, noise=Copying())
    assert copying.deterministic(Cosine())
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(*(one(lambda x, level, condition=None: x / 2, x, schedule=Cosine()) for one in (plain, copying)))
