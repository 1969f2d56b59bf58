"""Every schedule YAML keeps the contract of a schedule, and each obeys the equation that defines it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffsweep.diffusion import CLEAN, Level, Schedule
from diffsweep.diffusion.schedules import (
    VE,
    VP,
    Cosine,
    Karras,
    Laplace,
    Rectified,
    Shifted,
    Sigmoid,
    Tabulated,
    TabulatedSigmas,
    ZeroSNR,
    linear_betas,
    scaled_linear_betas,
)
from prerequisites import need_module

CONF = Path(__file__).parent.parent / "conf"
# But that of a model at hand, which is one of the others.
NAMES = sorted({path.stem for path in (CONF / "schedule").glob("*.yaml")} - {"imported"})
INSIDE = st.floats(1e-4, 1 - 1e-4)


def of_yaml() -> dict[str, Schedule]:
    # In one go: to compose is slow, and whoever collects the tests waits for it.
    with initialize_config_dir(str(CONF), version_base="1.3"):
        made = compose("config", [f"+schedule@every.{name}={name}" for name in NAMES]).every
    return {name: instantiate(made[name]) for name in NAMES}


EVERY = of_yaml() | {
    # What no YAML holds: wrapped wrappers, unequal ends, large and small figures.
    "zero_snr of vp": ZeroSNR(VP(), first=0.0),
    "zero_snr of cosine": ZeroSNR(Cosine(-6, 8), first=0.0),
    "zero_snr of scaled_linear": ZeroSNR(scaled_linear_betas()),
    "zero_snr of shifted": ZeroSNR(Shifted(Cosine(), size=16), first=0.0),
    "shifted rectified": Shifted(Rectified(), size=256),
    "shifted shifted": Shifted(Shifted(VE(), size=16), size=32),
    "one-sided sigmoid": Sigmoid(start=0.0, end=3.0, tau=0.3),
    "steep sigmoid": Sigmoid(tau=0.1),
    "wide laplace": Laplace(mean=-2.0, scale=1.5),
    "constant rate": VP(1.0, 1.0),
    "linear in noise": Karras(rho=1.0),
    "one beta": Tabulated([0.9]),
    "two sigmas": TabulatedSigmas([0.5, 7.0]),
}
every_schedule = pytest.mark.parametrize("schedule", EVERY.values(), ids=EVERY.keys())
# The first call of some torch functions takes longer than hypothesis allows.
calm = settings(deadline=None)


@every_schedule
@calm
@given(t=INSIDE)
def test_time_inverts_level(schedule: Schedule, t: float) -> None:
    assert schedule.time(schedule.level(t).logsnr) == pytest.approx(t, abs=1e-9)


@every_schedule
@calm
@given(t=INSIDE, s=INSIDE)
def test_logsnr_falls_with_time(schedule: Schedule, t: float, s: float) -> None:
    if t < s - 1e-9:
        assert schedule.level(t).logsnr > schedule.level(s).logsnr


@every_schedule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_of_any_shape_hold_the_levels_of_floats(schedule: Schedule, dtype: torch.dtype) -> None:
    t = torch.linspace(0, 1, 42, dtype=dtype).view(2, 3, 7)
    batch = schedule.level(t)
    assert batch.alpha.shape == batch.sigma.shape == t.shape
    assert batch.alpha.dtype == batch.sigma.dtype == dtype
    exact = [schedule.level(float(value)) for value in t.flatten()]
    rtol, atol = (1e-12, 1e-14) if dtype == torch.float64 else (1e-3, 1e-6)
    alpha, sigma = torch.tensor([[level.alpha, level.sigma] for level in exact], dtype=dtype).T
    torch.testing.assert_close(batch.alpha.flatten(), alpha, rtol=rtol, atol=atol)
    torch.testing.assert_close(batch.sigma.flatten(), sigma, rtol=rtol, atol=atol)
    back = schedule.time(batch.logsnr)
    assert isinstance(back, Tensor)
    assert back.dtype == dtype
    torch.testing.assert_close(back, t, rtol=0, atol=1e-9 if dtype == torch.float64 else 1e-5)


@every_schedule
def test_float32_levels_are_finite_and_never_rise(schedule: Schedule) -> None:
    # 2^-24 and 1 - 2^-24 are the nearest that training's uniforms come to the ends.
    t = torch.cat([torch.linspace(0, 1, 2001), torch.tensor([2**-24, 1e-6, 1 - 1e-6, 1 - 2**-24])]).sort().values
    level = schedule.level(t)
    assert level.alpha.isfinite().all()
    assert level.sigma.isfinite().all()
    assert (level.alpha >= 0).all()
    assert (level.sigma[1:] > 0).all()
    logsnr = schedule.logsnr(t)
    assert (logsnr[1:] <= logsnr[:-1] + 1e-4 * logsnr[1:].abs().clamp(min=1)).all()


@every_schedule
def test_both_ends_are_finite_or_exactly_clean_and_pure(schedule: Schedule) -> None:
    clean, pure = schedule.level(0.0), schedule.level(1.0)
    assert clean == CLEAN or math.isfinite(clean.logsnr)
    assert pure == Level(0.0, 1.0) or math.isfinite(pure.logsnr)
    assert schedule.time(clean.logsnr) == pytest.approx(0, abs=1e-12)
    assert schedule.time(pure.logsnr) == pytest.approx(1, abs=1e-12)
    # What lies beyond the ends is the end, infinities included.
    assert schedule.time(50.0) == pytest.approx(0, abs=1e-6)
    assert schedule.time(math.inf) == pytest.approx(0, abs=1e-12)
    assert schedule.time(-50.0) == pytest.approx(1, abs=1e-6)
    assert schedule.time(-math.inf) == pytest.approx(1, abs=1e-12)


@calm
@given(t=INSIDE)
def test_sigmoid_is_the_papers_curve(t: float) -> None:
    """Against gamma of algorithm 1 of arXiv 2301.10972, cut nowhere that matters."""

    def logistic(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    for start, end, tau in [(-3.0, 3.0, 1.0), (-3.0, 3.0, 0.3), (0.0, 3.0, 0.7)]:
        at_end, at_start = logistic(end / tau), logistic(start / tau)
        gamma = (at_end - logistic((t * (end - start) + start) / tau)) / (at_end - at_start)
        level = Sigmoid(start, end, tau, -60.0, 60.0).level(t)
        assert level.alpha**2 == pytest.approx(gamma, rel=1e-7)
        assert level.sigma**2 == pytest.approx(1 - gamma, rel=1e-7)


@calm
@given(t=INSIDE)
def test_laplace_is_the_papers_curve(t: float) -> None:
    mean, scale = 0.7, 0.5
    expected = mean - scale * math.copysign(1, 0.5 - t) * math.log(1 - 2 * abs(t - 0.5))
    assert Laplace(mean, scale, -40.0, 40.0).level(t).logsnr == pytest.approx(expected, abs=1e-9)


def test_laplace_times_have_the_laplace_distribution() -> None:
    """The quantiles of log-SNR under uniform time are those of Laplace(mean, scale)."""
    schedule = Laplace(mean=1.0, scale=0.8, logsnr_min=-30.0, logsnr_max=30.0)
    law = torch.distributions.Laplace(torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64))
    t = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    torch.testing.assert_close(law.cdf(schedule.logsnr(t)), 1 - t, rtol=0, atol=1e-12)


def test_cut_curves_end_where_they_are_told() -> None:
    for schedule in (Sigmoid(logsnr_min=-7.0, logsnr_max=9.0), Laplace(logsnr_min=-7.0, logsnr_max=9.0)):
        assert schedule.level(0.0).logsnr == pytest.approx(9)
        assert schedule.level(1.0).logsnr == pytest.approx(-7)


@calm
@given(t=st.floats(0, 1))
def test_karras_is_edms_equation_5(t: float) -> None:
    """sigma_i with i / (N - 1) = 1 - t."""
    low, high, rho = 0.002, 80.0, 7.0
    sigma = (high ** (1 / rho) + (1 - t) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    level = Karras().level(t)
    assert level.alpha == 1
    assert level.sigma == pytest.approx(sigma, rel=1e-12)


@calm
@given(t=st.floats(0, 1))
def test_vp_is_the_integral_of_its_rate(t: float) -> None:
    low, high = 0.1, 20.0
    log_alpha = -(t**2) * (high - low) / 4 - t * low / 2
    level = VP(low, high).level(t)
    assert level.alpha == pytest.approx(math.exp(log_alpha), rel=1e-12)
    assert level.sigma == pytest.approx(math.sqrt(-math.expm1(2 * log_alpha)), rel=1e-12)


def test_vp_is_the_limit_of_ddpms_chain() -> None:
    """beta_i = beta(i / T) / T (arXiv 2011.13456, appendix C) is DDPM's 1e-4 ... 0.02 at T = 1000."""
    gaps = []
    for steps in (1000, 10_000):
        chain = linear_betas(0.1 / steps, 20 / steps, steps)
        gaps.append(max(abs(chain.level(t).alpha - VP().level(t).alpha) for t in (0.1, 0.4, 0.7, 1.0)))
    assert gaps[0] < 0.01
    assert gaps[1] == pytest.approx(gaps[0] / 10, rel=0.1)


def test_log_linear_has_geometric_noise() -> None:
    sigma = EVERY["log_linear"].level(torch.linspace(0, 1, 200, dtype=torch.float64)).sigma
    torch.testing.assert_close(sigma, torch.logspace(math.log10(0.02), 1, 200, dtype=torch.float64))


def alphas(schedule: Schedule) -> Tensor:
    """alpha at the 1,000 points of a table, float64."""
    return schedule.level(torch.arange(1, 1001, dtype=torch.float64) / 1000).alpha


@pytest.mark.parametrize(
    ("name", "schedule", "start", "end"),
    [("linear", linear_betas, 1e-4, 0.02), ("scaled_linear", scaled_linear_betas, 0.00085, 0.012)],
)
def test_tables_are_those_of_diffusers(name: str, schedule: Callable[[], Schedule], start: float, end: float) -> None:
    diffusers = need_module("diffusers")
    theirs = diffusers.DDPMScheduler(beta_schedule=name, beta_start=start, beta_end=end)
    # Their cumulative product runs in float32, ours in float64.
    torch.testing.assert_close(alphas(schedule()).float(), theirs.alphas_cumprod.sqrt(), rtol=0, atol=1e-6)
    rescale = diffusers.schedulers.scheduling_ddim.rescale_zero_terminal_snr
    rescaled = (1 - rescale(theirs.betas.double())).cumprod(0).sqrt()
    torch.testing.assert_close(alphas(ZeroSNR(schedule())), rescaled, rtol=0, atol=1e-6)


def test_the_table_made_of_sigmoid_betas_of_diffusers_is_exact_at_its_points() -> None:
    """Theirs are a sigmoid in beta (GeoDiff), not in alpha^2: another schedule, which any table can hold."""
    theirs = need_module("diffusers").DDPMScheduler(beta_schedule="sigmoid")
    ours = Tabulated(theirs.betas.double().tolist())
    torch.testing.assert_close(alphas(ours).float(), theirs.alphas_cumprod.sqrt(), rtol=0, atol=1e-6)


@calm
@given(sigmas=st.lists(st.floats(1e-3, 100), min_size=1, max_size=12, unique=True))
def test_a_table_of_noise_levels_is_exact_at_its_points(sigmas: list[float]) -> None:
    table = sorted(sigmas)
    schedule = TabulatedSigmas(table)
    for i, sigma in enumerate(table, 1):
        assert schedule.level(i / len(table)).sigma == pytest.approx(sigma, rel=1e-9)
    assert schedule.level(0.5 / len(table)).sigma == pytest.approx(table[0] / 2, rel=1e-12)
    assert schedule.level(0.0) == CLEAN


@calm
@given(betas=st.lists(st.floats(1e-4, 0.9), min_size=1, max_size=12))
def test_a_table_of_betas_is_exact_at_its_points(betas: list[float]) -> None:
    schedule, cumulative = Tabulated(betas), 1.0
    for i, beta in enumerate(betas, 1):
        cumulative *= 1 - beta
        assert schedule.level(i / len(betas)).alpha == pytest.approx(math.sqrt(cumulative), rel=1e-9)


@pytest.mark.parametrize(("inner", "first"), [(linear_betas(), 0.001), (VP(), 0.0), (Cosine(-6, 8), 0.0)])
def test_zero_snr_is_algorithm_1(inner: Schedule, first: float) -> None:
    schedule = ZeroSNR(inner, first)
    kept, end = inner.level(first).alpha, inner.level(1.0).alpha
    for t in torch.linspace(first, 1, 50, dtype=torch.float64).tolist():
        level = schedule.level(t)
        assert level.alpha == pytest.approx((inner.level(t).alpha - end) * kept / (kept - end), abs=1e-12)
        assert level.alpha**2 + level.sigma**2 == pytest.approx(1)
    assert schedule.level(1.0) == Level(0.0, 1.0)
    assert schedule.level(first).alpha == pytest.approx(kept, rel=1e-12)
    assert schedule.level(first / 2) == inner.level(first / 2)


@calm
@given(t=INSIDE)
def test_shift_is_in_log_snr(t: float) -> None:
    for inner in (Cosine(), VE(), linear_betas()):
        shifted = Shifted(inner, size=256, base=64)
        assert shifted.level(t).logsnr == pytest.approx(inner.level(t).logsnr + 2 * math.log(64 / 256), abs=1e-9)
    assert Shifted(VE(), size=128, base=64).level(t).sigma == pytest.approx(2 * VE().level(t).sigma, rel=1e-9)


@calm
@given(t=INSIDE)
def test_on_the_straight_path_it_is_sd3s_timestep_shift(t: float) -> None:
    """Equation 23 of arXiv 2403.03206, with n and m pixels: t_m = sqrt(m/n) t_n / (1 + (sqrt(m/n) - 1) t_n)."""
    size, base = 96, 64
    ratio = math.sqrt(size**2 / base**2)
    level = Shifted(Rectified(), size, base).level(t)
    assert level.sigma == pytest.approx(ratio * t / (1 + (ratio - 1) * t), rel=1e-12)
    assert level.alpha == pytest.approx(1 - level.sigma, rel=1e-9)


@pytest.mark.parametrize(
    ("dataset", "size"), [("digits", 8), ("fashion_mnist", 28), ("mixture", 64)], ids=["digits", "fashion", "points"]
)
def test_the_shift_follows_the_height_of_the_datasets_images(dataset: str, size: int) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", ["schedule=shifted", "schedule@schedule.inner=rectified", f"dataset={dataset}"])
    expected = Rectified().level(0.3).logsnr + 2 * math.log(64 / size)
    assert instantiate(cfg.schedule).level(0.3).logsnr == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Sigmoid(start=3, end=-3), "start=3 must be below end=-3"),
        (lambda: Sigmoid(tau=0), "tau=0 must be above 0"),
        (lambda: Sigmoid(tau=1e30), r"tau=1e\+30 must be at most 3e\+06"),
        (lambda: Sigmoid(logsnr_max=math.inf), "logsnr_max=inf, both finite"),
        (lambda: Laplace(scale=-1), "scale=-1 must be above 0"),
        (lambda: Laplace(mean=20), "mean=20 must lie between logsnr_min=-10.0 and logsnr_max=13.0"),
        (lambda: Karras(rho=0), "rho=0 must be above 0"),
        (lambda: Karras(sigma_min=90), "sigma_min=90 must be above 0 and below sigma_max=80.0"),
        (lambda: VP(beta_min=0), "beta_min=0 must be above 0"),
        (lambda: VP(beta_min=3, beta_max=2), "beta_min=3 must be above 0 and at most beta_max=2"),
        (lambda: scaled_linear_betas(beta_start=-1e-4), "beta_start=-0.0001 must be above 0 and below 1"),
        (lambda: linear_betas(beta_end=1.5), "beta_end=1.5 must be above 0 and below 1"),
        (lambda: scaled_linear_betas(steps=0), "steps=0 must be a whole number, 1 or more"),
        (lambda: TabulatedSigmas([]), "an empty list"),
        (lambda: TabulatedSigmas([0.1, 0.1]), r"sigmas\[1\]=0.1 follows 0.1"),
        (lambda: TabulatedSigmas([-1.0, 2.0]), r"sigmas\[0\]=-1.0"),
        (lambda: TabulatedSigmas([1.0, math.nan]), r"sigmas\[1\]=nan"),
        (lambda: ZeroSNR(VE()), "but ve is not: choose cosine"),
        (lambda: ZeroSNR(Rectified()), "but rectified is not: choose cosine"),
        (lambda: ZeroSNR(Cosine(), first=1.0), "first=1.0 must be at least 0 and below 1"),
        (lambda: Shifted(Cosine(), size=0), "size=0 must be above 0"),
        (lambda: Shifted(Cosine(), base=-64), "base=-64 must be above 0"),
    ],
)
def test_impossible_figures_are_refused_in_one_line(make: Callable[[], Schedule], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)
