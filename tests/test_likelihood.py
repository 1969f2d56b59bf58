"""Likelihood and inversion against the mixture's exact density and its exact probability flow."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffsweep.diffusion import GaussianMixture, Level, Sampler, Schedule
from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.inverse import invert
from diffsweep.diffusion.likelihood import bits_per_dimension, log_likelihood
from diffsweep.diffusion.noise import SDE
from diffsweep.diffusion.schedules import VE, Cosine, Rectified, linear_betas
from diffsweep.diffusion.solvers import DPMpp2M, Euler, Heun
from diffsweep.diffusion.spacing import Karras, LogSNR, Time

LINE = GaussianMixture.of([0.3, 0.7], [[-1.0], [0.8]], [0.3, 0.5])
PLANE = GaussianMixture.of([0.2, 0.5, 0.3], [[-1.0, 0.5], [0.8, 0.8], [0.3, -1.2]], [0.3, 0.5, 0.4])
SCHEDULES: list[Schedule] = [Cosine(-24.0, 13.0), VE(0.002, 1e5), Rectified(), linear_betas()]


def log_density(mixture: GaussianMixture, x0: Tensor, noise: float = 0.0) -> Tensor:
    """Of the mixture, smoothed by Gaussian noise."""
    scale = (mixture.stds**2 + noise**2).sqrt()[:, None]
    each = torch.distributions.Normal(mixture.means, scale).log_prob(x0[:, None]).sum(-1)
    return torch.logsumexp(each + mixture.weights.log(), 1)


def data(mixture: GaussianMixture, n: int = 50) -> Tensor:
    return mixture.sample(n, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("mixture", "schedule"),
    [(LINE, SCHEDULES[0]), *((PLANE, schedule) for schedule in SCHEDULES)],
    ids=lambda value: type(value).__name__,
)
def test_the_exact_trace_gives_the_exact_density(mixture: GaussianMixture, schedule: Schedule) -> None:
    x0 = data(mixture, 20)
    got = log_likelihood(mixture, x0, schedule, steps=250, exact=True, noise_max=1e5)
    low, high = max(0.002, float(schedule.level(0.0).noise)), min(1e5, float(schedule.level(1.0).noise))
    assert got.dtype == torch.float64
    # The far end is not quite N(0, high^2): its mean is off by m / high standard deviations.
    torch.testing.assert_close(got, log_density(mixture, x0, low), rtol=0, atol=1e-5 + 4 / high)
    torch.testing.assert_close(got, log_density(mixture, x0), rtol=0, atol=1e-3 + 4 / high)


def test_the_integrator_is_of_fourth_order() -> None:
    """Against itself with many steps, which leaves only the integrator's error."""
    x0 = data(PLANE, 10)
    fine = log_likelihood(PLANE, x0, VE(), steps=240, exact=True)
    errors = [
        float((log_likelihood(PLANE, x0, VE(), steps=steps, exact=True) - fine).square().mean().sqrt())
        for steps in (20, 40, 80)
    ]
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert slopes == pytest.approx([4, 4], abs=0.5)


class Turning:
    """A linear denoiser whose Jacobian is not symmetric: the trace must not depend on that."""

    matrix = torch.tensor([[0.5, 0.4, -0.2], [-0.3, 0.2, 0.1], [0.2, -0.6, 0.3]], dtype=torch.float64)

    def __call__(self, x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
        return (x / level.alpha).flatten(1) @ self.matrix.T.to(x)


def test_hutchinsons_estimate_is_unbiased() -> None:
    """For a linear denoiser the flow does not depend on the probes, so the estimate's mean is the exact value."""
    x0 = torch.randn(1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).expand(4000, 3)
    exact = log_likelihood(Turning(), x0[:1], VE(), steps=30, exact=True)
    got = log_likelihood(Turning(), x0, VE(), steps=30, generator=torch.Generator().manual_seed(1))
    error = float(got.std()) / len(got) ** 0.5
    assert 0 < error < 0.1
    assert abs(float(got.mean() - exact)) < 4 * error
    # More probes, less spread: four take half.
    four = log_likelihood(Turning(), x0, VE(), steps=30, probes=4, generator=torch.Generator().manual_seed(2))
    assert float(four.std()) == pytest.approx(float(got.std()) / 2, rel=0.1)
    # A linear flow is a matrix exponential.
    n = math.log(80 / 0.002)
    flowed = torch.linalg.matrix_exp(n * (torch.eye(3, dtype=torch.float64) - Turning.matrix)) @ x0[0] / 80
    closed = -flowed.square().sum() / 2 - 1.5 * math.log(2 * math.pi) - 3 * math.log(0.002) - n * Turning.matrix.trace()
    fine = log_likelihood(Turning(), x0[:1], VE(), steps=300, exact=True)
    assert float(fine) == pytest.approx(float(closed), rel=1e-6)


def test_hutchinson_is_exact_in_one_dimension_and_right_on_average_in_two() -> None:
    x0 = data(LINE)
    torch.testing.assert_close(
        log_likelihood(LINE, x0, Cosine(), steps=50), log_likelihood(LINE, x0, Cosine(), steps=50, exact=True)
    )
    x0 = data(PLANE, 4)
    many = x0.repeat_interleave(400, 0)
    got = log_likelihood(PLANE, many, VE(), steps=40, generator=torch.Generator().manual_seed(0)).view(4, 400)
    exact = log_likelihood(PLANE, x0, VE(), steps=40, exact=True)
    assert torch.all((got.mean(1) - exact).abs() < 4 * got.std(1) / 20 + 1e-9)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_images_labels_and_callers_without_gradients(context: Callable[[], Any]) -> None:
    """A standard Gaussian over pictures, moved by its label."""

    class Pictures(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = torch.nn.Embedding(2, 12)

        def forward(self, x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
            assert condition is not None
            m = self.shift(condition["label"].value).view_as(x)
            return m + level.alpha / (level.alpha**2 + level.sigma**2) * (x - level.alpha * m)

    denoise = Pictures()
    with context():
        x0, labels = torch.randn(4, 3, 2, 2), torch.tensor([0, 1, 0, 1])
        told = Condition.of(label=labels)
        got = log_likelihood(denoise, x0, VE(sigma_max=1000.0), steps=60, noise_max=1000.0, condition=told)
        means = denoise.shift.weight[labels].view_as(x0)
        exact = torch.distributions.Normal(means, 1.0).log_prob(x0).flatten(1).sum(1)
    assert got.dtype == torch.float32
    assert not got.requires_grad
    torch.testing.assert_close(got, exact, rtol=1e-3, atol=2e-2)


def test_bits_per_dimension_of_a_known_code() -> None:
    """Independent uniform grey levels cost 8 bits each: their dequantised density on [-1, 1 + 1/127.5) is flat."""
    dimensions = 48
    logp = torch.full((3,), -dimensions * math.log(256 / 127.5))
    torch.testing.assert_close(bits_per_dimension(logp, dimensions), torch.full((3,), 8.0))
    torch.testing.assert_close(bits_per_dimension(logp, dimensions, 1.0), torch.full((3,), math.log2(256 / 127.5)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "steps=0 must be a whole number, 1 or more"),
        ({"probes": 1.5}, "probes=1.5 must be a whole number, 1 or more"),
        ({"noise_min": 100.0}, "noise_min=100.0 leaves, with noise_max=80.0"),
        ({"noise_min": 0.0, "schedule": Rectified()}, "noise_min=0.0"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        log_likelihood(**({"denoise": LINE, "x0": data(LINE), "schedule": Cosine()} | changes))
    with pytest.raises(ValueError, match="a single step, which cannot be inverted"):
        invert(Sampler(Euler(), Time(), 1), LINE, data(LINE), schedule=Cosine())


ROUND_TRIPS = [(Euler(), 1000, 1e-2), (DPMpp2M(), 200, 4e-3), (Heun(), 399, 1e-3)]


@pytest.mark.parametrize("schedule", [Cosine(), VE(), Rectified(), linear_betas()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(("solver", "nfe", "tolerance"), ROUND_TRIPS, ids=["euler", "dpmpp_2m", "heun"])
def test_inversion_is_the_exact_flow_and_the_way_back(
    solver: Any, nfe: int, tolerance: float, schedule: Schedule
) -> None:
    x0 = LINE.quantile(torch.linspace(0.01, 0.99, 50, dtype=torch.float64), Level(1.0, 0.0))[:, None]
    sampler = Sampler(solver, LogSNR(noise_min=0.002), nfe)
    noise = invert(sampler, LINE, x0, schedule=schedule)
    start = sampler.levels(schedule)[0]
    exact = LINE.flow(x0, Level(1.0, 0.0), start) / start.sigma
    assert float((noise - exact).abs().max()) < tolerance
    assert float((sampler(LINE, noise, schedule=schedule) - x0).abs().max()) < 2 * tolerance


def test_inverted_data_are_unit_noise() -> None:
    x0 = data(LINE, 4000)
    noise = invert(Sampler(Heun(), Karras(), 79), LINE, x0, schedule=VE())
    p = torch.special.ndtr(noise.flatten()).sort().values
    assert float((p - (torch.arange(4000) + 0.5) / 4000).abs().max()) < 1.63 / 4000**0.5


def test_inversion_goes_up_to_pure_noise_and_ignores_fresh_noise() -> None:
    x0 = data(LINE)
    plain, fresh = (Sampler(Euler(), Time(), 400, noise) for noise in (SDE(), SDE(1.0)))
    noise = invert(plain, LINE, x0, schedule=Rectified())
    assert torch.equal(noise, invert(fresh, LINE, x0, schedule=Rectified()))
    exact = LINE.flow(x0, Level(1.0, 0.0), Level(0.0, 1.0))
    torch.testing.assert_close(noise, exact, rtol=0, atol=2e-2)
