"""What a training may do beside regressing: losses, weights that learn, times that adapt, self-conditioning, labels."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from diffsweep.backbones import MLP, UNet
from diffsweep.conditioners import Label
from diffsweep.data.examples import Examples
from diffsweep.diffusion import CLEAN, Denoiser, Diffuser, GaussianMixture, Level, Sampler, Schedule
from diffsweep.diffusion.condition import Condition, Entry
from diffsweep.diffusion.generators import uniforms
from diffsweep.diffusion.loss import Huber, PseudoHuber, SquaredError
from diffsweep.diffusion.objective import Objective
from diffsweep.diffusion.objective_check import check_objective
from diffsweep.diffusion.schedules import VE, Cosine, Rectified, linear_betas
from diffsweep.diffusion.self_conditioning import LastEstimate, SelfConditioned
from diffsweep.diffusion.solvers import Heun
from diffsweep.diffusion.spacing import LogSNR as Even
from diffsweep.diffusion.target import EDM, X0, Eps, Score, V
from diffsweep.diffusion.times import Cosine as CosineTimes
from diffsweep.diffusion.times import LogNormal, LogSNR, LossAware, Uniform
from diffsweep.diffusion.weight import SNR, Learned, Output
from diffsweep.training.batches import Batch, Batches
from settings import training_settings

Backbone = Callable[[Tensor, Tensor], Tensor]


class Function(nn.Module):
    """A backbone that is a function and remembers what it was asked."""

    def __init__(self, function: Backbone, inputs: int = 1) -> None:
        super().__init__()
        self.function = function
        self.inputs = inputs
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, logsnr: Tensor, condition: Condition | None = None) -> Tensor:
        self.seen.append(x)
        return self.function(x, logsnr)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain(**changes: object) -> Diffuser:
    parts = {"target": V(), "times": Uniform(), "weight": Output(), "loss": SquaredError()}
    return Diffuser(**(parts | changes))  # pyright: ignore[reportArgumentType]


def test_the_score_target_is_sigma_times_the_score() -> None:
    """Against the closed score of a Gaussian: p(x_t) = N(alpha m, alpha^2 s^2 + sigma^2)."""
    mean, std = 0.6, 0.3
    oracle = GaussianMixture.of([1.0], [[mean]], [std])
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    for t in (0.1, 0.5, 0.9):
        level = Cosine().level(t)
        skip, out = Score().skip_out(level)
        score = -(x - level.alpha * mean) / (level.alpha**2 * std**2 + level.sigma**2)
        torch.testing.assert_close((oracle(x, level) - skip * x) / out, level.sigma * score)


def test_huber_is_twice_torchs_and_the_square_for_small_errors() -> None:
    a, b = torch.randn(2, 5, 3, 4, 4, generator=seeded(), dtype=torch.float64)
    for delta in (0.1, 1.0, 3.0):
        twice = 2 * nn.functional.huber_loss(a, b, reduction="none", delta=delta).flatten(1).mean(1)
        torch.testing.assert_close(Huber(delta)(a, b), twice)
    torch.testing.assert_close(Huber(100.0)(a, b), SquaredError()(a, b))


def test_pseudo_huber_is_the_papers_and_keeps_its_digits() -> None:
    for scale in (1e-6, 1e-3, 1.0, 1e3):
        a = scale * torch.randn(4, 3, 8, 8, generator=seeded())
        for row, got in zip(a.double(), PseudoHuber(0.00054)(a, a * 0), strict=True):
            c = 0.00054 * math.sqrt(3 * 8 * 8)
            assert float(got) == pytest.approx(float(row.square().sum() + c**2) ** 0.5 - c, rel=1e-5, abs=1e-15)


@pytest.mark.parametrize("loss", [SquaredError(), Huber(), PseudoHuber()])
def test_a_loss_is_of_each_example_and_has_a_gradient_at_zero(loss: SquaredError | Huber | PseudoHuber) -> None:
    a = torch.zeros(3, 2, 4, 4, requires_grad=True)
    assert not loss(a, a * 0).any()
    loss(a, torch.zeros_like(a)).sum().backward()
    assert a.grad is not None
    assert not a.grad.any()
    b = torch.randn(3, 2, 4, 4, generator=seeded())
    torch.testing.assert_close(loss(b, b * 0)[1:2], loss(b[1:2], b[1:2] * 0))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Huber(0), r"delta=0 must be above 0"),
        (lambda: PseudoHuber(-1), r"c=-1 must be above 0"),
        (lambda: LogSNR(3, 2), r"low=3 must be below high=2"),
        (lambda: CosineTimes([1, 8, 8], low=0), r"low=0 must be above 0"),
        (lambda: CosineTimes([1, 8, 8], noise_min=2, noise_max=1), r"noise_min=2 must be above 0"),
        (lambda: LossAware(Uniform(), bins=0), r"bins=0"),
        (lambda: LossAware(Uniform(), decay=1.0), r"decay=1\.0 must be at least 0 and below 1"),
        (lambda: LossAware(Uniform(), uniform=0), r"uniform=0 must be above 0"),
        (lambda: Learned(SNR(), 0), r"features=0"),
        (lambda: plain(offset=-1), r"offset=-1 must be 0"),
        (lambda: SelfConditioned(plain(), 0.0), r"probability=0\.0 must be above 0"),
        (lambda: SelfConditioned(plain()).build(MLP([2]), Cosine()), r"backbone\.inputs=1 must be 2"),
        (lambda: plain().build(MLP([2], inputs=2), Cosine()), r"backbone\.inputs=2 must be 1.*self_conditioned"),
        (lambda: plain().build(MLP([2], outputs=2), Cosine()), r"backbone\.outputs=2 must be 1"),
    ],
)
def test_refusals(build: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as refusal:
        build()
    assert "\n" not in str(refusal.value)


def test_offset_noise_is_one_number_per_channel() -> None:
    shape = (4000, 2, 2, 3)
    u, eps = plain(offset=0.5).draw(shape, seeded())
    bare_u, bare = plain().draw(shape, seeded())
    assert torch.equal(u, bare_u)
    offset = eps - bare
    torch.testing.assert_close(offset, offset[..., :1, :1].expand(shape))
    covariance = eps.flatten(1).T.cov()
    expected = torch.eye(12) + 0.25 * torch.block_diag(torch.ones(6, 6), torch.ones(6, 6))
    torch.testing.assert_close(covariance, expected, atol=0.1, rtol=0)


@pytest.mark.parametrize("schedule", [Cosine(), VE(), linear_betas()])
def test_logsnr_times_are_uniform_in_logsnr(schedule: Schedule) -> None:
    u = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    torch.testing.assert_close(schedule.level(LogSNR(-4, 6)(u, schedule)).logsnr, 6 - 10 * u)


@pytest.mark.parametrize(("size", "low", "high"), [(128, 32, 128), (64, 16, 32), (8, 32, 8)])
def test_cosine_times_are_those_of_simple_diffusion(size: int, low: int, high: int) -> None:
    """t logsnr_low(t) + (1 - t) logsnr_high(t), each -2 log tan(pi t / 2) + 2 log(d / size), t = 1 - u (2301.11093)."""
    u = torch.linspace(0.02, 0.98, 40, dtype=torch.float64)
    t = 1 - u
    cosine = -2 * (math.pi / 2 * t).tan().log()
    shifts = [2 * math.log(side / size) for side in (low, high)]
    expected = t * (cosine + shifts[0]) + (1 - t) * (cosine + shifts[1])
    times = CosineTimes([3, size, size], low, high, sigma_data=0.5, noise_min=1e-9, noise_max=1e9)
    schedule = Cosine(-40.0, 40.0)
    # Noise in units of the data: sigma_data^2 alpha^2 / sigma^2 is the papers' signal-to-noise ratio.
    found = schedule.level(times(u, schedule)).logsnr + 2 * math.log(0.5)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_points_have_no_resolution() -> None:
    u = torch.linspace(0.02, 0.98, 40, dtype=torch.float64)
    found = (
        Cosine(-40.0, 40.0)
        .level(CosineTimes([2], sigma_data=1.0, noise_min=1e-9, noise_max=1e9)(u, Cosine(-40.0, 40.0)))
        .logsnr
    )
    torch.testing.assert_close(found, -2 * (math.pi / 2 * (1 - u)).tan().log(), atol=1e-5, rtol=0)


def filled(base: Uniform | LogNormal, seed: int, bins: int = 7) -> LossAware:
    times = LossAware(base, bins, uniform=0.05).double()
    times.counts.copy_(torch.rand(bins, generator=seeded(seed)) + 1)
    times.squares.copy_(torch.randn(bins, generator=seeded(seed + 1)).exp())
    return times


@pytest.mark.parametrize("base", [Uniform(), LogNormal()])
@given(seed=st.integers(0, 1000))
def test_adaptive_times_leave_the_expected_loss_alone(base: Uniform | LogNormal, seed: int) -> None:
    times = filled(base, seed)
    u = (torch.arange(40_000, dtype=torch.float64) + 0.5) / 40_000

    def loss(t: Tensor) -> Tensor:
        return (3 * t).exp() + (9 * t).sin() + 2

    expected = loss(base(u, Cosine())).mean()
    corrected = times.correct(u, loss(times(u, Cosine())))
    assert float(corrected.detach().mean()) == pytest.approx(float(expected), rel=1e-3)


def test_adaptive_times_are_drawn_in_proportion_to_the_losses_root_mean_square() -> None:
    times = filled(Uniform(), 3)
    u = (torch.arange(70_000, dtype=torch.float64) + 0.5) / 70_000
    drawn = torch.histc(1 - times(u, Cosine()), 7, 0, 1) / len(u)
    size = (times.squares / times.counts).sqrt()
    torch.testing.assert_close(drawn, 0.95 * size / size.sum() + 0.05 / 7, atol=1e-3, rtol=0)


def test_adaptive_times_start_when_every_bin_has_been_seen_and_lower_the_variance() -> None:
    times, base = LossAware(Uniform(), 8), Uniform()

    def loss(t: Tensor) -> Tensor:
        return (4 * t).exp()

    u = torch.rand(512, generator=seeded())
    early = u[u < 0.8]
    times.correct(early, loss(base(early, Cosine())))
    assert torch.equal(times.shares(), torch.full((8,), 1 / 8))
    torch.testing.assert_close(times(u, Cosine()), base(u, Cosine()))
    times.correct(u, loss(times(u, Cosine())))
    assert times.shares()[0] > 5 * times.shares()[-1]
    plainly, corrected = loss(base(u, Cosine())), times.correct(u, loss(times(u, Cosine())))
    assert corrected.std() < 0.3 * plainly.std()
    assert float(corrected.mean()) == pytest.approx((math.e**4 - 1) / 4, rel=0.1)


def test_adaptive_times_remember_while_training_only_and_forget_slowly() -> None:
    times = LossAware(Uniform(), 1, decay=0.5)
    u, square, count = torch.tensor([0.2, 0.6]), 0.0, 0.0
    for losses in ([1.0, 2.0], [3.0, 0.5], [0.1, 0.2]):
        times.correct(u, torch.tensor(losses))
        square, count = 0.25 * square + sum(loss**2 for loss in losses), 0.25 * count + 2
    assert float(times.squares) == pytest.approx(square)
    assert float(times.counts) == pytest.approx(count)
    before = copy.deepcopy(times.state_dict())
    with torch.no_grad():
        times.correct(u, torch.ones(2))
    times.eval().correct(u, torch.ones(2))
    assert all(torch.equal(before[key], value) for key, value in times.state_dict().items())


def test_the_learned_weight_is_the_log_of_the_expected_loss() -> None:
    """A network that answers 0 to a target of x0 has, with weight snr, the expected loss snr E[x0^2] at each level."""
    schedule = Cosine(-4.0, 4.0)
    weight = Learned(SNR())
    diffuser = plain(target=X0(), times=LogSNR(-4.0, 4.0), weight=weight)
    denoiser = diffuser.build(Function(lambda x, logsnr: x * 0), schedule)
    optimizer = torch.optim.Adam(diffuser.parameters(), 0.02)
    assert [name for name, _ in diffuser.named_parameters()] == ["weight.mixture"]
    stream = seeded()
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / 300)
        loss = diffuser(denoiser, 0.5 * torch.randn(256, 4, generator=stream), generator=stream).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    logsnr = torch.linspace(-3.5, 3.5, 15)
    u = weight.price(schedule.path(logsnr)).detach()
    torch.testing.assert_close(u, logsnr + 2 * math.log(0.5), atol=0.1, rtol=0)
    # So every level counts alike: snr E[x0^2] / e^u = 1.
    level = schedule.path(logsnr)
    torch.testing.assert_close(weight(level, None) * 0.25, torch.ones(15), atol=0.1, rtol=0)


def test_the_learned_weight_is_finite_at_the_ends_and_does_not_depend_on_the_seed() -> None:
    torch.manual_seed(1)
    first = Learned(Output())
    torch.manual_seed(2)
    second = Learned(Output())
    assert torch.equal(first.frequencies, second.frequencies)
    nn.init.normal_(first.mixture)
    ends = Level(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))
    assert first.price(ends).isfinite().all()


def half(x: Tensor, logsnr: Tensor) -> Tensor:
    """A network with one answer for what it sees, of what it sees."""
    x, earlier = x.chunk(2, 1)
    return 0.5 * x + 0.25 * earlier + 0.1


def test_half_of_the_examples_see_the_networks_own_estimate() -> None:
    sigma_data, schedule = 0.7, Cosine()
    diffuser = SelfConditioned(plain(target=EDM(sigma_data)))
    backbone = Function(half, 2)
    denoiser = diffuser.build(backbone, schedule, sigma_data)
    x0 = torch.randn(512, 1, 2, 2, generator=seeded())
    u, eps = diffuser.draw(x0.shape, seeded(1))
    diffuser.regress(denoiser, x0, u, eps)
    first, second = backbone.seen
    x, nothing = first.chunk(2, 1)
    assert not nothing.any()
    again, earlier = second.chunk(2, 1)
    assert torch.equal(x, again)
    level = schedule.level(1 - u).like(x0)
    skip, out = EDM(sigma_data).skip_out(level)
    estimate = skip * (level.alpha * x0 + level.sigma * eps) + out * (0.5 * x + 0.1)
    shown = earlier.flatten(1).any(1)
    assert 0.4 < float(shown.float().mean()) < 0.6
    torch.testing.assert_close(earlier[shown], (estimate / sigma_data)[shown])
    # The coin tells nothing of the level.
    assert abs(float(u[shown].mean() - u[~shown].mean())) < 0.1


@pytest.mark.parametrize("size", [8, 64, 100, 4096])
def test_the_coin_is_fair_and_follows_from_the_uniforms(size: int) -> None:
    diffuser = SelfConditioned(plain(), 0.3)
    shown = []
    for seed in range(max(1, 4096 // size)):
        backbone = Function(half, 2)
        denoiser = diffuser.build(backbone, Cosine())
        u = uniforms(size, stratified=True, generator=seeded(seed))
        for part in (u, u[::2]):
            diffuser.regress(denoiser, torch.ones(len(part), 1), part, torch.ones(len(part), 1))
        whole, share = (backbone.seen[i].chunk(2, 1)[1].any(1) for i in (1, 3))
        assert torch.equal(whole[::2], share)
        shown.append(whole)
    assert float(torch.cat(shown).float().mean()) == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_the_estimate_has_no_gradient_but_the_network_has(dtype: torch.dtype | None) -> None:
    """Also under autocast, which keeps the weights that it casts: those of the first pass are cast without gradient."""
    torch.manual_seed(0)
    diffuser = SelfConditioned(plain(target=X0()), 1.0)
    weight = nn.Parameter(torch.tensor([[0.3, 0.2]]))
    denoiser = diffuser.build(Function(lambda x, logsnr: nn.functional.linear(x, weight), 2), Cosine(), 1.0)
    x0, u, eps = torch.randn(16, 1), torch.rand(16), torch.randn(16, 1)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        diffuser.regress(denoiser, x0, u, eps).sum().backward()
    level = Cosine().level(1 - u).like(x0)
    x = level.alpha * x0 + level.sigma * eps
    skip, out = X0().skip_out(level)
    seen = torch.cat([x, skip * x + out * 0.3 * x], 1)
    expected = 2 * ((seen @ torch.tensor([[0.3], [0.2]]) - x0) * seen).sum(0, keepdim=True)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, expected, rtol=1e-4 if dtype is None else 0.05, atol=0.1 if dtype else 1e-5)


def shown_while_sampling(levels: list[tuple[float, int]]) -> list[float]:
    """What a network that counts its calls is shown when asked at these noises, in batches of these sizes."""
    count = 0

    def answer(x: Tensor, logsnr: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return torch.full_like(x[:, :1], count)

    backbone = Function(answer, 2)
    denoiser = Denoiser(backbone, VE(), X0(), 1.0, LastEstimate())
    for noise, size in levels:
        denoiser(torch.zeros(size, 1), Level(1.0, noise))
    return [float(x[0, 1]) for x in backbone.seen]


@pytest.mark.parametrize(
    ("levels", "shown"),
    [
        ([(9, 2), (4, 2), (1, 2)], [0, 1, 2]),
        # Heun asks twice at a level, guidance asks two questions there: both are shown the same.
        ([(9, 2), (4, 2), (4, 2), (1, 2)], [0, 1, 1, 3]),
        # A new trajectory sees nothing of the old one, also after a single step, nor at another size.
        ([(9, 2), (1, 2), (9, 2), (1, 2)], [0, 1, 0, 3]),
        ([(9, 2), (9, 2), (math.inf, 2), (math.inf, 2)], [0, 0, 0, 0]),
        ([(9, 2), (4, 3), (1, 3)], [0, 0, 2]),
        # Back up: anew.
        ([(9, 2), (2, 2), (4, 2), (1, 2)], [0, 1, 0, 3]),
    ],
)
def test_sampling_is_shown_the_estimate_of_the_last_noisier_level(
    levels: list[tuple[float, int]], shown: list[float]
) -> None:
    # Level(1, inf) stands for pure noise, which has no finite noise.
    assert shown_while_sampling([(min(noise, 1e30), size) for noise, size in levels]) == shown


def test_a_self_conditioned_trajectory_repeats_itself() -> None:
    torch.manual_seed(0)
    model = UNet([1, 4, 4], width=8, groups=4, inputs=2)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.2)
    denoiser = SelfConditioned(plain()).build(model, Cosine()).eval()
    assert [name for name in denoiser.state_dict() if not name.startswith("backbone.")] == []
    noise = torch.randn(3, 1, 4, 4)
    with torch.no_grad():
        first, second = (Sampler(Heun(), Even(), 7)(denoiser, noise, schedule=Cosine()) for _ in range(2))
        other = Sampler(Heun(), Even(), 7)(denoiser, noise[:1], schedule=Cosine())
    assert torch.equal(first, second)
    torch.testing.assert_close(first[:1], other)
    assert denoiser(noise, CLEAN).isfinite().all()


def batches(drop: float | None = 0.25, **place: Any) -> Batches:
    settings = training_settings(steps=40, batch_size=32)
    told = {} if drop is None else {"label": Label(4, drop)}
    return Batches(Examples(torch.arange(64.0)[:, None], torch.arange(64) % 4), plain().draw, settings, told, **place)


def label(batch: Batch) -> Entry:
    assert batch.condition is not None
    return batch.condition["label"]


def test_labels_are_dropped_and_nothing_else_changes() -> None:
    dropped = 0
    for with_all, batch in zip(batches(drop=0.0), batches(), strict=True):
        assert label(with_all).present.all()
        assert torch.equal(label(batch).value, label(with_all).value)
        assert all(torch.equal(getattr(batch, name), getattr(with_all, name)) for name in ("x0", "u", "eps"))
        dropped += int((~label(batch).present).sum())
    assert dropped / (40 * 32) == pytest.approx(0.25, abs=0.04)
    for batch, told in zip(batches(drop=None), batches(), strict=True):
        assert batch.condition is None
        assert all(torch.equal(getattr(batch, name), getattr(told, name)) for name in ("x0", "u", "eps"))


def test_dropped_labels_are_a_function_of_the_step_and_shared_out() -> None:
    whole = list(batches())
    for at, batch in zip(whole[7:], batches(start=7), strict=True):
        assert torch.equal(label(at).present, label(batch).present)
    for rank in (0, 1):
        for at, batch in zip(whole, batches(rank=rank, ranks=2), strict=True):
            assert torch.equal(label(at).present[rank::2], label(batch).present)
            assert torch.equal(label(at).value[rank::2], label(batch).value)


OBJECTIVES: dict[str, tuple[Callable[[], Objective], int]] = {
    "plain": (plain, 1),
    "learned": (lambda: plain(weight=Learned(Output())), 1),
    "adaptive": (lambda: plain(times=LossAware(Uniform(), 4)), 1),
    "both": (lambda: plain(weight=Learned(SNR()), times=LossAware(LogNormal(), 4), loss=Huber(), target=Eps()), 1),
    "self_conditioned": (lambda: SelfConditioned(plain(times=LossAware(Uniform(), 4), offset=0.1)), 2),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_an_objective_learns_and_remembers_is_in_its_state(name: str) -> None:
    """Bit for bit: six steps, or three and, from what was saved of them, three more."""
    make, inputs = OBJECTIVES[name]
    x = torch.randn(64, 2, generator=seeded())

    def model() -> tuple[nn.ModuleDict, torch.optim.Optimizer]:
        torch.manual_seed(5)
        objective = make()
        denoiser = objective.build(MLP([2], 8, 1, inputs=inputs), Cosine())
        trained = nn.ModuleDict({"denoiser": denoiser, "objective": objective})
        return trained, torch.optim.Adam(trained.parameters(), 0.01)

    def train(trained: nn.ModuleDict, optimizer: torch.optim.Optimizer, steps: range) -> None:
        objective: nn.Module = trained["objective"]
        for step in steps:
            optimizer.zero_grad()
            objective(trained["denoiser"], x, generator=seeded(step)).mean().backward()
            optimizer.step()

    whole, optimizer = model()
    train(whole, optimizer, range(6))
    start, optimizer = model()
    train(start, optimizer, range(3))
    saved = copy.deepcopy((start.state_dict(), optimizer.state_dict()))
    resumed, optimizer = model()
    resumed.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    train(resumed, optimizer, range(3, 6))
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in resumed.state_dict().items())
    assert not any(
        torch.equal(value, expected[key]) for key, value in saved[0].items() if "frequ" not in key and "phas" not in key
    )


def test_offset_and_pure_noise_go_together() -> None:
    diffuser = plain(offset=0.1)
    denoiser = diffuser.build(MLP([3], 8, 1), Rectified())
    assert diffuser(denoiser, torch.randn(8, 3)).isfinite().all()


def test_a_loss_without_bound_is_warned_of() -> None:
    """The weight snr of the error in x0 grows to 1e15 where noise vanishes, and a few examples decide the training."""

    def line(diffuser: Diffuser, schedule: Schedule) -> str | None:
        return check_objective(diffuser, diffuser.build(MLP([2]), schedule, 1.0), (2,))

    unbounded = Diffuser(X0(), Uniform(), SNR(), SquaredError())
    for schedule in (Cosine(), Rectified()):
        said = line(unbounded, schedule)
        assert said is not None
        assert said.startswith("the loss of this diffuser has no bound on this schedule")
        assert "choose diffuser/weight=" in said
        assert line(Diffuser(X0(), Uniform(), Output(), SquaredError()), schedule) is None
        assert line(Diffuser(V(), Uniform(), Output(), SquaredError()), schedule) is None


def test_two_objectives_that_are_one_give_one_loss_and_their_options_say_so() -> None:
    """To predict the score times sigma is to predict -eps: diffuser=ddpm and score train the same model."""

    class Mirrored(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor, logsnr: Tensor, condition: Condition | None = None) -> Tensor:
            return -self.inner(x, logsnr, condition)

    torch.manual_seed(0)
    network, schedule, x0 = MLP([2]), Cosine(), torch.randn(64, 2)
    nn.init.normal_(network.leave.weight)
    ddpm, score = (Diffuser(target, Uniform(), Output(), SquaredError()) for target in (Eps(), Score()))
    u, eps = ddpm.draw((64, 2))
    losses = [
        diffuser.regress(diffuser.build(net, schedule), x0, u, eps)
        for diffuser, net in ((ddpm, network), (score, Mirrored(network)))
    ]
    torch.testing.assert_close(*losses)
    conf = Path(__file__).parent.parent / "conf" / "diffuser"
    for option, other in (("ddpm", "score"), ("score", "ddpm")):
        assert f"Same method as diffuser={other}" in (conf / f"{option}.yaml").read_text()
