"""A learned variance against closed forms: DDPM's own betas, the KL of two Gaussians, exact posterior variances."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from diffsweep.backbones import MLP
from diffsweep.diffusion import Denoiser, Diffuser, GaussianMixture, Level, Schedule
from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.denoiser import Spread
from diffsweep.diffusion.learned_variance import LearnedVariance, SpreadDenoiser, divergence, log_ratio
from diffsweep.diffusion.loss import SquaredError
from diffsweep.diffusion.schedules import VE, Cosine, Rectified, linear_betas
from diffsweep.diffusion.target import Eps, V
from diffsweep.diffusion.times import Uniform
from diffsweep.diffusion.weight import Output

SIMPLE = Diffuser(Eps(), Uniform(), Output(), SquaredError())
MIXTURE = GaussianMixture.of([0.3, 0.7], [[-1.0], [0.8]], [0.2, 0.4])
TIMES = st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)).map(sorted)


class Fixed(nn.Module):
    """A backbone of two outputs, both of them weights: a multiple of x, and a constant v."""

    def __init__(self, mean: float = 0.0, v: float = 0.0) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean, dtype=torch.float64))
        self.v = nn.Parameter(torch.tensor(v, dtype=torch.float64))

    def forward(self, x: Tensor, logsnr: Tensor, condition: Condition | None = None) -> Tensor:
        return torch.cat([self.mean * x, self.v.expand_as(x)], 1)


def built(schedule: Schedule, v: float) -> SpreadDenoiser:
    denoiser = LearnedVariance(SIMPLE).build(Fixed(v=v), schedule, 1.0)
    denoiser(torch.zeros(3, 2, dtype=torch.float64), schedule.level(0.5))
    return denoiser


@pytest.mark.parametrize("i", [2, 3, 137, 999, 1000])
def test_the_ends_are_ddpms_two_variances(i: int) -> None:
    """beta_i and (1 - abar_(i-1)) / (1 - abar_i) beta_i of arXiv 2006.11239, section 3.2, and their geometric mean."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    kept = (1 - betas).cumprod(0)
    beta = float(betas[i - 1])
    posterior = float((1 - kept[i - 2]) / (1 - kept[i - 1])) * beta
    schedule = linear_betas()
    t, s = schedule.level(i / 1000), schedule.level((i - 1) / 1000)
    for v, variance in ((0.0, posterior), (1.0, beta), (0.5, math.sqrt(beta * posterior))):
        spread = built(schedule, v).spread(t, s)
        assert spread.shape == (3, 2)
        torch.testing.assert_close(spread**2 * posterior, torch.full_like(spread, variance))


@given(times=TIMES)
def test_only_the_signal_to_noise_ratios_count(times: list[float]) -> None:
    (below, above), v = times, 0.7
    t, s = Cosine().level(above), Cosine().level(below)
    for scale in (0.1, 5.0):
        moved = [Level(level.alpha * scale, level.sigma * scale) for level in (t, s)]
        torch.testing.assert_close(built(Cosine(), v).spread(*moved), built(Cosine(), v).spread(t, s))
    tensors = [Level(*(torch.full((3,), value, dtype=torch.float64) for value in (x.alpha, x.sigma))) for x in (t, s)]
    torch.testing.assert_close(built(Cosine(), v).spread(*tensors), built(Cosine(), v).spread(t, s))


@pytest.mark.parametrize("schedule", [Cosine(), VE(), Rectified(), linear_betas()])
@given(times=TIMES, v=st.floats(-0.5, 1.5), x0=st.floats(-2, 2), guess=st.floats(-2, 2), eps=st.floats(-3, 3))
def test_the_divergence_is_that_of_two_gaussians(
    schedule: Schedule, times: list[float], v: float, x0: float, guess: float, eps: float
) -> None:
    """Posterior and model written out in x_s, for any path, and compared by torch's own KL."""
    t, s = schedule.level(times[1]), schedule.level(times[0])
    if t.noise < s.noise * (1 + 1e-6):
        return
    r = t.alpha / s.alpha
    forward = t.sigma**2 - r**2 * s.sigma**2
    x = t.alpha * x0 + t.sigma * eps

    def mean(x0: float) -> float:
        return r * s.sigma**2 / t.sigma**2 * x + s.alpha * forward / t.sigma**2 * x0

    posterior = math.sqrt(forward) * s.sigma / t.sigma
    levels = [Level(*(torch.tensor([value], dtype=torch.float64) for value in (x.alpha, x.sigma))) for x in (t, s)]
    sigma = posterior * math.exp(v * float(log_ratio(t, s)) / 2)
    normal = torch.distributions.Normal
    a, b = (normal(torch.tensor(m, dtype=torch.float64), sd) for m, sd in ((mean(x0), posterior), (mean(guess), sigma)))
    found = divergence(levels[0], levels[1], torch.tensor([v], dtype=torch.float64), torch.tensor([x0 - guess]))
    assert float(found) == pytest.approx(float(torch.distributions.kl_divergence(a, b)), rel=1e-5, abs=1e-9)


def test_the_divergence_is_zero_for_the_posterior_itself() -> None:
    t, s = (Cosine().level(torch.full((4,), time, dtype=torch.float64)) for time in (0.5, 0.3))
    nothing, some = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    assert torch.equal(divergence(t, s, nothing, nothing), nothing)
    assert torch.equal(divergence(t, t, some, some), nothing)
    assert (divergence(t, s, nothing, some) > 0).all()
    assert (divergence(t, s, some, nothing) > 0).all()


@pytest.mark.parametrize("time", [0.2, 0.5, 0.8])
def test_the_best_v_is_the_exact_posterior_variance(time: float) -> None:
    """Var(x0 | x) by Tweedie's derivative of the oracle; the expected KL, an integral over x0, is least there."""
    t, s = Cosine().level(time), Cosine().level(time - 0.05)
    grid = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    prior = sum(
        w * torch.exp(-((grid - m) ** 2) / (2 * d**2)) / d
        for w, m, d in zip(MIXTURE.weights, MIXTURE.means[:, 0], MIXTURE.stds, strict=True)
    )
    for x in (-1.2, 0.1, 0.9):
        at = torch.tensor([[x]], dtype=torch.float64, requires_grad=True)
        mean = MIXTURE(at, t)
        (slope,) = torch.autograd.grad(mean.sum(), at)
        variance = float(t.sigma**2 / t.alpha * slope)
        p = torch.exp(-((x - t.alpha * grid) ** 2) / (2 * t.sigma**2)) * prior
        p = p / p.sum()
        best = math.log(1 + (s.noise**-2 - t.noise**-2) * variance) / log_ratio(t, s)
        v = torch.tensor(best, dtype=torch.float64, requires_grad=True)
        levels = [
            Level(*(torch.tensor([value], dtype=torch.float64) for value in (level.alpha, level.sigma)))
            for level in (t, s)
        ]
        expected = (p * divergence(levels[0], levels[1], v, grid - float(mean.detach()))).sum()
        (gradient,) = torch.autograd.grad(expected, v, create_graph=True)
        (curvature,) = torch.autograd.grad(gradient, v)
        assert float(curvature.detach()) > 0
        assert abs(float((gradient / curvature).detach())) < 1e-4


class At:
    """Always the same time."""

    def __init__(self, time: float) -> None:
        self.time = time

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        return torch.full_like(u, self.time)


@pytest.mark.parametrize(("std", "time"), [(1.0, 0.4), (1.0, 0.9), (0.5, 0.3)])
def test_training_finds_the_variance_of_gaussian_data(std: float, time: float) -> None:
    """Data N(0, std^2) have Var(x0 | x) = std^2 sigma^2 / (alpha^2 std^2 + sigma^2); for std 1 the answer is beta."""
    simple = Diffuser(V(), At(time), Output(), SquaredError())
    objective = LearnedVariance(simple)
    schedule = Cosine()
    t, s = schedule.level(time), schedule.level(time - 0.001)
    root = math.sqrt(t.alpha**2 * std**2 + t.sigma**2)
    # The exact mean alpha std^2 / root^2 x as v's multiple of x / root, for sigma_data = std.
    backbone = Fixed(mean=t.alpha * t.sigma * (1 - std**2) / root)
    denoiser = objective.build(backbone, schedule, std)
    x = torch.randn(5, 1, dtype=torch.float64)
    torch.testing.assert_close(denoiser(x, t), x * t.alpha * std**2 / root**2)

    x0 = std * torch.randn(50_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u, eps = objective.draw((50_000, 1), torch.Generator().manual_seed(1))
    optimizer = torch.optim.LBFGS([backbone.v], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective.regress(denoiser, x0, u.double(), eps.double()).mean() * 1e3
        loss.backward()
        return loss

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    variance = std**2 * t.sigma**2 / root**2
    best = math.log(1 + (s.noise**-2 - t.noise**-2) * variance) / log_ratio(t, s)
    if std == 1:
        assert best == pytest.approx(1)
    assert float(backbone.v.detach()) == pytest.approx(best, rel=0.03)


def test_the_mean_learns_from_the_simple_loss_only_and_v_from_the_other() -> None:
    objective, backbone = LearnedVariance(SIMPLE), Fixed(0.3, 0.2)
    denoiser = objective.build(backbone, linear_betas(), 1.0)
    u, eps = (value.double() for value in objective.draw((64, 2), torch.Generator().manual_seed(0)))
    x0 = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    loss = objective.regress(denoiser, x0, u, eps)
    mean, v = torch.autograd.grad(loss.sum(), [backbone.mean, backbone.v])
    simple = SIMPLE.regress(denoiser, x0, u, eps)
    (alone,) = torch.autograd.grad(simple.sum(), [backbone.mean])
    assert torch.equal(mean, alone)
    assert v != 0
    # Eq. 16, each term apart.
    time = 1 - u
    t, s = (linear_betas().level(when) for when in (time, (time - 0.001).clamp(min=0.001)))
    error = x0 - denoiser(t.like(x0).alpha * x0 + t.like(x0).sigma * eps, t)
    bound = divergence(t.like(x0), s.like(x0), denoiser.v, error).mean(1)
    assert (time > 0.001).all()
    torch.testing.assert_close(loss, simple + 0.001 * 1000 * bound, rtol=1e-6, atol=1e-6)


def test_the_last_step_is_left_out() -> None:
    objective = LearnedVariance(Diffuser(V(), At(0.0007), Output(), SquaredError()))
    backbone = Fixed(0.3, 0.2)
    denoiser = objective.build(backbone, linear_betas(), 1.0)
    x0 = torch.randn(8, 1, dtype=torch.float64)
    u, eps = (value.double() for value in objective.draw((8, 1)))
    loss = objective.regress(denoiser, x0, u, eps)
    assert torch.equal(loss, objective.simple.regress(denoiser, x0, u, eps))


@pytest.mark.parametrize("schedule", [Cosine(), VE(), Rectified(), linear_betas()])
def test_single_precision_is_finite_everywhere(schedule: Schedule) -> None:
    objective = LearnedVariance(Diffuser(V(), Uniform(), Output(), SquaredError()))
    denoiser = objective.build(MLP([2], width=8, depth=1, outputs=2), schedule)
    u = torch.cat([torch.linspace(0, 1 - 1e-7, 1000), torch.tensor([1 - 0.001, 1 - 0.0010001])])
    loss = objective.regress(denoiser, torch.randn(len(u), 2), u, torch.randn(len(u), 2))
    loss.mean().backward()
    assert loss.isfinite().all()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in denoiser.parameters())


class First(nn.Module):
    """A backbone of one output that does not say so."""

    def forward(self, x: Tensor, logsnr: Tensor, condition: Condition | None = None) -> Tensor:
        return 0.3 * x


def test_it_denoises_as_its_first_half_does() -> None:
    x, t = torch.randn(4, 2, dtype=torch.float64), Cosine().level(0.6)
    denoiser = LearnedVariance(SIMPLE).build(Fixed(0.3, 0.9), Cosine(), 0.7)
    torch.testing.assert_close(denoiser(x, t), Denoiser(First(), Cosine(), Eps(), 0.7)(x, t))
    assert isinstance(denoiser, Spread)
    assert not isinstance(Denoiser(First(), Cosine(), Eps()), Spread)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"backbone.outputs=1 must be 2"):
        LearnedVariance(SIMPLE).build(MLP([2]), Cosine())
    denoiser = LearnedVariance(SIMPLE).build(First(), Cosine())
    with pytest.raises(ValueError, match=r"two outputs, 4 channels, but it gave 2: choose backbone.outputs=2"):
        denoiser(torch.zeros(1, 2), Cosine().level(0.5))
    for steps in (1, 2.5, True):
        with pytest.raises(ValueError, match=f"^steps={str(steps).lower()} must be a whole number, 2 or more"):
            LearnedVariance(SIMPLE, steps=steps)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"^vlb=0 must be above 0"):
        LearnedVariance(SIMPLE, vlb=0)


def test_few_steps_gain_from_a_learned_variance() -> None:
    """The chain's bound (arXiv 2006.11239, eq. 5) with the exact mean, over long steps, v being that of short ones."""
    n = 4000
    x0 = MIXTURE.sample(n, torch.Generator().manual_seed(0))
    stream = torch.Generator().manual_seed(1)
    for steps in (4, 10, 50):
        bounds = {"posterior": 0.0, "forward": 0.0, "learned": 0.0}
        for i in range(2, steps + 1):
            t, s, near = (
                Cosine().level(torch.full((n,), time, dtype=torch.float64)).like(x0)
                for time in (i / steps, (i - 1) / steps, i / steps - 0.001)
            )
            x = t.alpha * x0 + t.sigma * torch.randn(n, 1, dtype=torch.float64, generator=stream)
            x.requires_grad_()
            mean = MIXTURE(x, Level(t.alpha.flatten(), t.sigma.flatten()))
            (slope,) = torch.autograd.grad(mean.sum(), x)
            variance = t.sigma**2 / t.alpha * slope
            short = (1 + (near.logsnr.exp() - t.logsnr.exp()) * variance).log() / log_ratio(t, near)
            for name, v in (("posterior", short * 0), ("forward", short * 0 + 1), ("learned", short)):
                bounds[name] += float(divergence(t, s, v, x0 - mean.detach()).mean())
        assert bounds["learned"] < min(bounds["posterior"], bounds["forward"]), (steps, bounds)
