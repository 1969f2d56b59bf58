"""Schedules, targets, the denoiser and the training objective, against their defining equations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from diffsweep.diffusion import Denoiser, Diffuser, GaussianMixture, Level, Schedule, Target, renoise, transfer
from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.generators import uniforms
from diffsweep.diffusion.loss import SquaredError
from diffsweep.diffusion.schedules import VE, Cosine, Rectified, Tabulated, linear_betas
from diffsweep.diffusion.target import EDM, X0, Eps, Flow, Score, V
from diffsweep.diffusion.times import Cosine as CosineTimes
from diffsweep.diffusion.times import LogitNormal, LogNormal, LogSNR, LossAware, Times, Uniform
from diffsweep.diffusion.weight import EDM as EDMWeight
from diffsweep.diffusion.weight import SNR, Learned, MinSNR, Output, Sigmoid, SoftMinSNR, Units
from diffsweep.diffusion.weight import Uniform as Flat

SCHEDULES = [Cosine(), VE(), Rectified(), linear_betas()]
TARGETS = [X0(), Eps(), V(), Flow(), EDM(0.7), Score()]
TIMES = st.floats(1e-4, 1 - 1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(t=TIMES)
def test_time_inverts_level(schedule: Schedule, t: float) -> None:
    assert schedule.time(schedule.level(t).logsnr) == pytest.approx(t, abs=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(t=TIMES, s=TIMES)
def test_logsnr_falls_with_time(schedule: Schedule, t: float, s: float) -> None:
    if t < s - 1e-9:
        assert schedule.level(t).logsnr > schedule.level(s).logsnr


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_tensor_and_float_levels_agree(schedule: Schedule) -> None:
    t = torch.linspace(0, 1, 33, dtype=torch.float64)
    batch = schedule.level(t)
    for i, single in enumerate(schedule.level(float(value)) for value in t):
        assert float(batch.alpha[i]) == pytest.approx(single.alpha, rel=1e-12)
        assert float(batch.sigma[i]) == pytest.approx(single.sigma, rel=1e-12)


@pytest.mark.parametrize("t", [-0.1, 1.01, math.nan])
def test_times_outside_are_refused(t: float) -> None:
    with pytest.raises(ValueError, match="outside"):
        Cosine().level(t)


def test_linear_is_exact_at_ddpms_own_points() -> None:
    cumulative, schedule = 1.0, linear_betas()
    for i in range(1, 1001):
        cumulative *= 1 - (1e-4 + (0.02 - 1e-4) * (i - 1) / 999)
        if i in (1, 2, 137, 999, 1000):
            level = schedule.level(i / 1000)
            assert level.alpha == pytest.approx(math.sqrt(cumulative), rel=1e-12)
            assert level.sigma == pytest.approx(math.sqrt(1 - cumulative), rel=1e-12)


@pytest.mark.parametrize("betas", [[], [0.0, 0.1], [0.1, 1.0], [0.1, -0.2]])
def test_impossible_betas_are_refused(betas: list[float]) -> None:
    with pytest.raises(ValueError, match="betas must each lie strictly between 0 and 1"):
        Tabulated(betas)


def test_schedules_hold_to_their_paths() -> None:
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    for schedule in (Cosine(), linear_betas()):
        level = schedule.level(t)
        torch.testing.assert_close(level.alpha**2 + level.sigma**2, torch.ones_like(t))
    level = Rectified().level(t)
    torch.testing.assert_close(level.alpha, 1 - t)
    torch.testing.assert_close(level.sigma, t)
    level = VE(0.1, 10).level(t)
    torch.testing.assert_close(level.sigma, 0.1 * 100**t)
    assert Rectified().level(1.0) == Level(0.0, 1.0)
    assert Cosine(-6, 8).level(1.0).logsnr == pytest.approx(-6)
    assert Cosine(-6, 8).level(0.0).logsnr == pytest.approx(8)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("target", TARGETS)
@given(t=st.floats(0.01, 0.99), x0=st.floats(-3, 3), eps=st.floats(-3, 3))
def test_every_target_gives_back_x0(schedule: Schedule, target: Target, t: float, x0: float, eps: float) -> None:
    level = schedule.level(t)
    a, b = target.coefficients(level)
    skip, out = target.skip_out(level)
    x = level.alpha * x0 + level.sigma * eps
    # eps amplifies rounding by noise / alpha where there is hardly any signal.
    assert skip * x + out * (a * x0 + b * eps) == pytest.approx(x0, abs=1e-9 * max(1.0, level.noise))


def test_edm_target_is_the_papers_preconditioning() -> None:
    """Against c_skip and c_out of table 1 of arXiv 2206.00364."""
    for sigma in (0.01, 0.5, 20.0):
        skip, out = EDM(0.5).skip_out(Level(1.0, sigma))
        assert skip == pytest.approx(0.25 / (sigma**2 + 0.25))
        assert out == pytest.approx(sigma * 0.5 / math.sqrt(sigma**2 + 0.25))


def test_transfer_and_renoise_follow_the_forward_process() -> None:
    x0, eps = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    for schedule in SCHEDULES:
        t, s = schedule.level(0.8), schedule.level(0.3)
        moved = transfer(t.alpha * x0 + t.sigma * eps, t, s, x0)
        torch.testing.assert_close(moved, s.alpha * x0 + s.sigma * eps)
        ratio = t.alpha / s.alpha
        noised = renoise(moved, s, t, eps * 0)
        torch.testing.assert_close(noised, moved * ratio)
        kick = renoise(moved * 0, s, t, torch.ones_like(moved))
        torch.testing.assert_close(kick**2 + (ratio * s.sigma) ** 2, torch.full_like(kick, t.sigma**2))


def test_the_oracle_is_the_conditional_mean_and_the_flow_keeps_quantiles() -> None:
    mixture = GaussianMixture.of([0.3, 0.7], [[-1.0], [0.8]], [0.3, 0.5])
    level = Cosine().level(0.45)
    grid = torch.linspace(-4, 4, 20001, dtype=torch.float64)
    prior = sum(
        w * torch.exp(-((grid - m) ** 2) / (2 * s**2)) / s
        for w, m, s in zip(mixture.weights, mixture.means[:, 0], mixture.stds, strict=True)
    )
    x = torch.tensor([-1.5, 0.0, 0.9], dtype=torch.float64)
    likelihood = torch.exp(-((x[:, None] - level.alpha * grid) ** 2) / (2 * level.sigma**2)) * prior
    torch.testing.assert_close(mixture(x[:, None], level).flatten(), (likelihood * grid).sum(1) / likelihood.sum(1))
    s = Cosine().level(0.2)
    torch.testing.assert_close(mixture.cdf(mixture.flow(x, level, s), s), mixture.cdf(x, level))


def test_the_oracles_density_integrates_to_one_and_to_its_distribution() -> None:
    mixture, level = GaussianMixture.of([0.3, 0.7], [[-1.0], [0.8]], [0.3, 0.5]), Cosine().level(0.4)
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    below = (mixture.log_prob(grid[:, None], level).exp() * (grid[1] - grid[0])).cumsum(0)
    torch.testing.assert_close(below, mixture.cdf(grid, level), atol=2e-3, rtol=0)
    plane = GaussianMixture.of([1.0], [[0.5, -0.5]], [0.7])
    exact = torch.distributions.Normal(torch.tensor([0.5, -0.5]), 0.7).log_prob(torch.ones(2)).sum()
    assert float(plane.log_prob(torch.ones(1, 2))) == pytest.approx(float(exact))


class Constant(torch.nn.Module):
    """A backbone that answers a fixed number and remembers what it was asked."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, logsnr: Tensor, condition: Condition | None = None) -> Tensor:
        self.seen.append((x, logsnr))
        return torch.full_like(x, self.value)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("target", [X0(), V(), EDM(0.5), Flow()])
def test_the_network_sees_unit_variance_at_every_level(schedule: Schedule, target: Target) -> None:
    backbone, sigma_data = Constant(0.0), 0.3
    denoiser = Denoiser(backbone, schedule, target, sigma_data)
    x0, eps = sigma_data * torch.randn(20_000, 1), torch.randn(20_000, 1)
    for t in (0.05, 0.5, 0.95):
        level = schedule.level(t)
        denoiser(level.alpha * x0 + level.sigma * eps, level)
        x, logsnr = backbone.seen[-1]
        assert float(x.std()) == pytest.approx(1, rel=0.03)
        assert float(logsnr[0]) == pytest.approx(level.logsnr, rel=1e-5)


def test_eps_cannot_serve_a_schedule_that_starts_at_pure_noise() -> None:
    with pytest.raises(ValueError, match=r"predicts eps cannot give x0.*choose diffuser=v"):
        Denoiser(Constant(0), Rectified(), Eps())


WEIGHTS = {
    "output": (Output(), None),
    "uniform": (Flat(), lambda snr: 1.0),
    "snr": (SNR(), lambda snr: snr),
    "min_snr": (MinSNR(5.0), lambda snr: min(snr, 5.0)),
    "soft_min_snr": (SoftMinSNR(4.0), lambda snr: 4 * snr / (4 + snr)),
    "edm": (EDMWeight(0.7), lambda snr: (1 / snr + 0.49) / (0.49 / snr)),
    "sigmoid": (Sigmoid(1.5), lambda snr: snr / (1 + math.exp(math.log(snr) - 1.5))),
    "learned": (Learned(SNR()), lambda snr: snr),
    "units of v": (Units(V()), lambda snr: snr + 1),
    "units of eps": (Units(Eps()), lambda snr: snr),
}


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("target", TARGETS)
def test_the_loss_is_the_weighted_error_in_x0(name: str, target: Target) -> None:
    weight, expected = WEIGHTS[name]
    schedule, x0 = linear_betas(), torch.tensor([[0.4, -0.8]] * 16)
    diffuser = Diffuser(target, Uniform(), weight, SquaredError())
    denoiser = Denoiser(Constant(0.3), schedule, target, 0.7)
    u, eps = diffuser.draw((16, 2), torch.Generator().manual_seed(0))
    losses = diffuser.regress(denoiser, x0, u, eps).detach()
    for i, t in enumerate(1 - u.double()):
        level = schedule.level(float(t))
        x = level.alpha * x0[i : i + 1] + level.sigma * eps[i : i + 1]
        error = float((denoiser(x, level) - x0[i : i + 1]).square().mean())
        if expected is None:
            a, b = target.coefficients(level)
            assert float(losses[i]) == pytest.approx(
                float((0.3 - a * x0[i] - b * eps[i]).square().mean()), rel=1e-3, abs=1e-5
            )
        else:
            assert float(losses[i]) == pytest.approx(error * expected((level.alpha / level.sigma) ** 2), rel=2e-2)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    "times",
    [
        Uniform(),
        LogNormal(),
        LogitNormal(),
        LogSNR(),
        CosineTimes([3, 64, 64]),
        CosineTimes([2]),
        LossAware(Uniform()),
        LossAware(LogNormal()),
    ],
)
def test_times_are_a_quantile_function(times: Times, schedule: Schedule) -> None:
    u = torch.cat([torch.zeros(1), uniforms(4096, stratified=True), torch.tensor([1 - 2**-24])])
    t = times(u, schedule)
    assert ((t > 0) & (t <= 1)).all()
    steps = t[u.argsort()].diff()
    assert (steps >= -1e-6).all() or (steps <= 1e-6).all()
    level = schedule.level(t)
    assert level.alpha.isfinite().all()
    assert (level.sigma > 0).all()


def test_lognormal_times_have_edms_noise_on_every_schedule() -> None:
    for schedule in SCHEDULES:
        u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
        log_noise = -schedule.level(LogNormal(-1.2, 1.2)(u, schedule)).logsnr / 2
        assert float(log_noise.median()) == pytest.approx(-1.2, abs=0.01)
        assert float(log_noise.quantile(0.8413)) == pytest.approx(0.0, abs=0.02)


def test_stratified_uniforms_have_one_per_stratum() -> None:
    u = uniforms(64, stratified=True)
    assert sorted((u * 64).long().tolist()) == list(range(64))
    free = uniforms(64, stratified=False)
    assert len(set((free * 64).long().tolist())) < 60


def test_a_small_network_learns_the_oracle() -> None:
    """The objective's minimiser is E[x0 | x_t]: a tiny net trained on a mixture comes near the exact denoiser."""
    torch.manual_seed(0)
    mixture = GaussianMixture.of([0.5, 0.5], [[-1.0], [1.0]], [0.2, 0.2])

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(2, 64),
                torch.nn.SiLU(),
                torch.nn.Linear(64, 64),
                torch.nn.SiLU(),
                torch.nn.Linear(64, 1),
            )

        def forward(self, x: Tensor, logsnr: Tensor, condition: Condition | None = None) -> Tensor:
            return self.layers(torch.cat([x, logsnr[:, None].to(x) / 5], 1))

    diffuser = Diffuser(V(), Uniform(), Output(), SquaredError())
    denoiser = Denoiser(Net(), Cosine(), diffuser.target, 1.0)
    optimizer = torch.optim.Adam(denoiser.parameters(), 3e-3)
    for _ in range(600):
        loss = diffuser(denoiser, mixture.sample(256).float()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for t in (0.3, 0.5, 0.7):
        level = Cosine().level(t)
        x = level.alpha * mixture.sample(2000).float() + level.sigma * torch.randn(2000, 1)
        with torch.no_grad():
            assert float((denoiser(x, level) - mixture(x, level)).square().mean()) < 0.01


class ExactNetwork(torch.nn.Module):
    """The best that a network can learn on a schedule for a target, from what a network is given."""

    def __init__(self, schedule: Schedule, target: Target, mixture: GaussianMixture, sigma_data: float) -> None:
        super().__init__()
        self.schedule, self.target, self.mixture, self.sigma_data = schedule, target, mixture, sigma_data

    def forward(self, seen: Tensor, logsnr: Tensor, condition: Condition | None = None) -> Tensor:
        there = self.schedule.path(logsnr.to(torch.float64)).like(seen)
        x = seen * (there.alpha**2 * self.sigma_data**2 + there.sigma**2).sqrt()
        x0 = self.mixture(x, Level(there.alpha[:, 0], there.sigma[:, 0]))
        a, b = self.target.coefficients(there)
        return a * x0 + b * (x - there.alpha * x0) / there.sigma


@pytest.mark.parametrize("schedule", [Cosine(), VE(), Rectified()], ids=["cosine", "ve", "rectified"])
@pytest.mark.parametrize(
    "target", [X0(), Eps(), Score(), V(), Flow(), EDM(0.7)], ids=lambda target: type(target).__name__
)
def test_a_denoiser_is_right_off_the_path_too(schedule: Schedule, target: Target) -> None:
    """Solvers of second order, churn and restarts ask at levels that differ from the path's by a scaling of x."""
    mixture = GaussianMixture.of([0.3, 0.7], [[-1.0, 0.5], [0.6, -0.2]], [0.2, 0.4])
    if not math.isfinite(target.skip_out(schedule.level(1.0))[0]):
        pytest.skip("a target that cannot give x0 at the start of this schedule is refused")
    denoiser = Denoiser(ExactNetwork(schedule, target, mixture, 0.7), schedule, target, 0.7).double()
    x = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for time in (0.2, 0.5, 0.9):
        on_path = schedule.level(time)
        for factor in (1.0, 0.3, 1.7):
            level = on_path.at(on_path.noise * factor)
            seen = x * math.hypot(level.alpha, level.sigma)
            torch.testing.assert_close(denoiser(seen, level), mixture(seen, level), rtol=0, atol=1e-5)
            # A level for each example, as the adaptive solver asks.
            each = Level(*(torch.full((16,), value, dtype=torch.float64) for value in (level.alpha, level.sigma)))
            torch.testing.assert_close(denoiser(seen, each), mixture(seen, each), rtol=0, atol=1e-5)
