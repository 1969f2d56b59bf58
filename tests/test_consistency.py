"""Consistency: exact neighbours, the paper's discretisation, and on a mixture one or two steps that find both modes."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from diffsweep.backbones import MLP
from diffsweep.diffusion import CLEAN, Denoise, Denoiser, GaussianMixture, Level, Sampler, Schedule, Target
from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.consistency import Consistency, ConsistencyDistillation, ConsistencyTraining
from diffsweep.diffusion.loss import PseudoHuber, SquaredError
from diffsweep.diffusion.noise import Anew
from diffsweep.diffusion.schedules import VE, Cosine, Rectified, linear_betas
from diffsweep.diffusion.solvers import Euler
from diffsweep.diffusion.spacing import Karras, Time
from diffsweep.diffusion.target import EDM, X0, Eps, Flow, V
from diffsweep.diffusion.times import LogNormal, Uniform

UNIT = EDM(1.0)
TIMES = LogNormal(-1.1, 2.0)
MIXTURE = GaussianMixture.of([0.5, 0.5], [[-1.0], [1.0]], [0.2, 0.2])


def training(
    target: Target = UNIT, *, steps: int = 100, coarse: int = 10, fine: int = 10, stratified: bool = True
) -> ConsistencyTraining:
    return ConsistencyTraining(target, TIMES, PseudoHuber(), Karras(), steps, coarse, fine, stratified)


def distillation(
    teacher: Denoise | str | None = MIXTURE,
    target: Target = UNIT,
    *,
    steps: int = 100,
    intervals: int = 18,
    warm_start: bool = True,
) -> ConsistencyDistillation:
    return ConsistencyDistillation(
        target, TIMES, PseudoHuber(), Karras(), steps, teacher, warm_start, intervals, intervals
    )


class Linear(nn.Module):
    """F = weight x: the smallest backbone that learns."""

    def __init__(self, weight: float = 0.5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x: Tensor, logsnr: Tensor, condition: Condition | None = None) -> Tensor:
        return self.weight * x


@pytest.mark.parametrize("schedule", [Cosine(), VE(), Rectified(), linear_betas()])
@pytest.mark.parametrize("target", [EDM(1.0), V(), Flow()])
def test_the_loss_is_its_definition(schedule: Schedule, target: Target) -> None:
    """Written out for every example, on levels taken from the spacing itself."""
    objective, backbone = training(target), Linear()
    denoiser = objective.build(backbone, schedule, 1.0)
    u, eps = objective.draw((64, 3), torch.Generator().manual_seed(0))
    x0 = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    loss = objective.regress(denoiser, x0, u, eps)
    levels = Karras()(schedule, 10)
    drawn = schedule.level(TIMES(u, schedule)).noise
    for i, noise in enumerate(drawn.tolist()):
        # Times are cut to VE's ends, where the spacing has its own.
        interval = max(j for j in range(10) if levels[j].noise >= min(noise, levels[0].noise) * (1 - 1e-5))
        t, s = levels[interval], levels[interval + 1]

        def denoised(level: Level, i: int = i) -> Tensor:
            # sigma_data is 1
            scale = (level.alpha**2 + level.sigma**2) ** -0.5
            x = level.alpha * x0[i] + level.sigma * eps[i]
            skip, out = target.skip_out(level)
            return skip * x + out * 0.5 * scale * x

        goal = x0[i] if interval == 9 else denoised(s)
        square = float((denoised(t) - goal).square().sum())
        c = 0.00054 * math.sqrt(3)
        wanted = (math.sqrt(square + c**2) - c) / (t.noise - s.noise)
        assert float(loss[i].detach()) == pytest.approx(wanted, rel=2e-3, abs=1e-3)


def test_only_the_noisier_level_learns() -> None:
    """Against the gradient with the goal computed apart, as a constant."""
    objective, backbone = training(), Linear()
    denoiser = objective.build(backbone, Cosine(), 1.0)
    u, eps = objective.draw((32, 2), torch.Generator().manual_seed(0))
    x0 = torch.randn(32, 2)
    t, s = objective.pair(denoiser.schedule, u)
    goal = denoiser(s.like(x0).alpha * x0 + s.like(x0).sigma * eps, s).detach()
    guess = denoiser(t.like(x0).alpha * x0 + t.like(x0).sigma * eps, t)
    (apart,) = torch.autograd.grad((PseudoHuber()(guess, goal) / (t.noise - s.noise)).sum(), [backbone.weight])
    (found,) = torch.autograd.grad(objective.regress(denoiser, x0, u, eps).sum(), [backbone.weight])
    torch.testing.assert_close(found, apart)


def test_levels_follow_the_discretised_lognormal() -> None:
    """The probabilities of section 3.5 of arXiv 2310.14189, with what lies beyond the ends put there."""
    objective, schedule, n = training(), VE(), 200_000
    u, _ = objective.draw((n, 1), torch.Generator().manual_seed(0))
    t, s = objective.pair(schedule, u)
    edges = [level.noise for level in Karras()(schedule, 10)][::-1]
    below = [0.0, *(0.5 + 0.5 * math.erf((math.log(noise) + 1.1) / (2 * math.sqrt(2))) for noise in edges[1:-1]), 1.0]
    for i in range(10):
        here = torch.isclose(t.noise, torch.tensor(edges[i + 1]))
        assert float(here.float().mean()) == pytest.approx(below[i + 1] - below[i], abs=1e-3)
        assert torch.allclose(s.noise[here], torch.tensor(edges[i]), atol=1e-7)


def test_intervals_double_with_the_steps_and_a_resumed_training_goes_on() -> None:
    """floor(s0 2^(k / K')) of arXiv 2310.14189, section 3.4, with s0 = 10, s1 = 50: 10, 20, 40, 50."""
    objective, denoiser = training(steps=8, fine=50), Denoiser(Linear(), VE(), EDM(1.0), 1.0)
    seen = []
    for step in range(10):
        if step == 5:
            state = {name: value.clone() for name, value in objective.state_dict().items()}
            objective = training(steps=8, fine=50)
            objective.load_state_dict(state)
        u = torch.linspace(0, 1 - 1e-6, 100_000)
        t, _ = objective.pair(denoiser.schedule, u)
        seen.append(len(t.noise.unique()))
        objective(denoiser, torch.zeros(4, 1))
    assert seen == [10, 10, 20, 20, 40, 40, 50, 50, 50, 50]
    with torch.no_grad():
        objective(denoiser, torch.zeros(4, 1))
    objective.eval()(denoiser, torch.zeros(4, 1))
    assert int(objective.step) == 10


def test_the_teachers_step_is_second_order_and_the_flow_is_consistent() -> None:
    """Against the mixture's closed probability flow: one Heun step errs by the third power of its length."""
    n, errors = 64, []
    x0 = MIXTURE.sample(n, torch.Generator().manual_seed(0))
    eps = torch.randn(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    objective = distillation()
    for factor in (1.2, 1.1, 1.05):
        noises = torch.tensor([[0.7 * factor], [0.7]], dtype=torch.float64)
        t, s = (Cosine.path((-2 * noise.log()).expand(n)) for noise in noises)
        x = t.like(x0).alpha * x0 + t.like(x0).sigma * eps
        one = Level(float(t.alpha[0]), float(t.sigma[0])), Level(float(s.alpha[0]), float(s.sigma[0]))
        y = objective.neighbour(x, t, s, x0, eps)
        errors.append(float((y - MIXTURE.flow(x, *one)).abs().mean()))
    slopes = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert all(2.6 < slope < 3.4 for slope in slopes), slopes


def test_the_teachers_last_step_is_its_own_denoised_x() -> None:
    """Whatever the teacher would say of clean data."""

    def teacher(x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
        return 0.3 * x

    x = torch.randn(5, 1, dtype=torch.float64)
    t = VE.path(torch.full((5,), -2 * math.log(0.3), dtype=torch.float64))
    clean = Level(torch.ones(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(distillation(teacher).neighbour(x, t, clean, x, x), teacher(x, t))


def test_both_levels_see_the_same_dropout() -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.masks: list[Tensor] = []

        def forward(self, x: Tensor, logsnr: Tensor, condition: Condition | None = None) -> Tensor:
            self.masks.append(nn.functional.dropout(torch.ones_like(x)))
            return x * self.masks[-1]

    backbone, objective = Dropping(), training()
    denoiser = objective.build(backbone, Cosine(), 1.0)
    for _ in range(2):
        objective(denoiser, torch.randn(16, 8))
    first, second, third, fourth = backbone.masks
    assert torch.equal(first, second)
    assert torch.equal(third, fourth)
    assert not torch.equal(first, third)


def test_half_precision_keeps_the_gradient() -> None:
    """Autocast remembers weights that it has cast, and must not hand those of the goal to the guess."""
    torch.manual_seed(0)
    objective = training()
    backbone = MLP([2], width=16, depth=1)
    denoiser = objective.build(backbone, Cosine(), 1.0)
    for weight in backbone.parameters():
        nn.init.normal_(weight, std=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        objective(denoiser, torch.randn(16, 2)).mean().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in backbone.parameters())


def test_the_teacher_is_a_guest() -> None:
    teacher = Denoiser(MLP([1], width=8, depth=1), Cosine(), EDM(1.0), 1.0).eval()
    objective = distillation(teacher)
    assert list(objective.parameters()) == []
    assert list(objective.state_dict()) == ["step"]
    assert copy.deepcopy(objective).teacher.model is teacher
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    backbone = MLP([1], width=8, depth=1)
    denoiser = objective.build(backbone, Cosine(), 1.0)
    objective(denoiser, torch.randn(8, 1)).mean().backward()
    assert all(weight.grad is None for weight in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_a_student_starts_as_its_teacher_or_is_told_why_not() -> None:
    torch.manual_seed(0)
    teacher = Denoiser(MLP([1], width=8, depth=1), Cosine(), EDM(1.0), 1.0)
    student = distillation(teacher).build(MLP([1], width=8, depth=1), Cosine(-8, 9), 1.0)
    x, t = torch.randn(4, 1), Cosine().level(0.5)
    assert torch.equal(student(x, t), teacher(x, t))
    apart = distillation(teacher, warm_start=False).build(MLP([1], width=8, depth=1), Cosine(), 1.0)
    assert not torch.equal(apart.backbone.state_dict()["enter.weight"], teacher.backbone.state_dict()["enter.weight"])
    with pytest.raises(ValueError, match=r"predicts EDM\(.*this diffuser V\(\).*warm_start=false"):
        distillation(teacher, V()).build(MLP([1], width=8, depth=1), Cosine(), 1.0)
    with pytest.raises(ValueError, match=r"teacher's network has other weights.*warm_start=false"):
        distillation(teacher).build(MLP([1], width=16, depth=1), Cosine(), 1.0)
    with pytest.raises(ValueError, match="path of schedule=cosine, which is not that of schedule=ve"):
        distillation(teacher).build(MLP([1], width=8, depth=1), VE(), 1.0)


def test_refusals() -> None:
    for target in (EDM(0.3), V(), Eps(), Flow()):
        training(target)
    with pytest.raises(ValueError, match=r"x0 does not leave clean data alone.*diffuser/target=edm"):
        training(X0())
    with pytest.raises(ValueError, match=r"^teacher=null must name the finished fit"):
        distillation(None)
    objective = distillation("1a2b")
    denoiser = objective.build(Linear(), Cosine(), 1.0)
    with pytest.raises(ValueError, match="1a2b has only been named"):
        objective(denoiser, torch.zeros(2, 1))
    with pytest.raises(ValueError, match="infinite where this spacing starts on schedule=rectified"):
        ConsistencyTraining(V(), Uniform(), SquaredError(), Time(), 10).build(Linear(), Rectified())
    with pytest.raises(ValueError, match=r"backbone.outputs=2 must be 1"):
        training().build(MLP([1], outputs=2), Cosine())
    for wrong, words in (({"coarse": 1}, "coarse=1"), ({"fine": 5}, "fine=5"), ({"steps": 0}, "steps=0")):
        with pytest.raises(ValueError, match=f"^{words} must be a whole number"):
            training(**wrong)  # pyright: ignore[reportArgumentType]


def distance(samples: Tensor) -> float:
    """The Wasserstein-2 distance of samples (N, 1) to the mixture."""
    ranks = (torch.arange(len(samples), dtype=torch.float64) + 0.5) / len(samples)
    return float((samples.flatten().double().sort().values - MIXTURE.quantile(ranks, CLEAN)).square().mean().sqrt())


def drawn(denoise: Denoise, steps: int) -> Tensor:
    """Consistency samples; two steps stand at noise 10 and 0.4."""
    noise = torch.randn(2000, 1, generator=torch.Generator().manual_seed(5))
    sampler = Sampler(Euler(), Karras(noise_min=0.4, noise_max=10.0), nfe=steps, noise=Anew())
    with torch.no_grad():
        return sampler(denoise, noise, schedule=Cosine(), generator=torch.Generator().manual_seed(6))


def trained(objective: Consistency, steps: int) -> Denoiser:
    torch.manual_seed(0)
    denoiser = objective.build(MLP([1], width=64, depth=2, octaves=0), Cosine(), 1.0)
    optimizer = torch.optim.Adam(denoiser.parameters(), 5e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    stream = torch.Generator().manual_seed(0)
    for _ in range(steps):
        optimizer.zero_grad()
        objective(denoiser, MIXTURE.sample(256, stream).float(), generator=stream).mean().backward()
        nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()
        decay.step()
    return denoiser


def test_one_or_two_steps_find_both_modes_and_a_teacher_helps() -> None:
    """The exact denoiser itself, of which one step gives the mean, is no consistency model."""
    steps, levels, times = 400, Karras(noise_min=0.02, noise_max=10.0), LogNormal(-0.5, 1.5)
    training = ConsistencyTraining(UNIT, times, PseudoHuber(), levels, steps, fine=80)
    distillation = ConsistencyDistillation(UNIT, times, PseudoHuber(), levels, steps, MIXTURE)
    denoisers: dict[str, Denoise] = {
        "exact": MIXTURE,
        "untrained": training.build(MLP([1], width=64, depth=2, octaves=0), Cosine(), 1.0),
        "trained": trained(training, steps),
        "distilled": trained(distillation, steps),
    }
    for n in (1, 2):
        found = {name: distance(drawn(denoise, n)) for name, denoise in denoisers.items()}
        assert min(found["exact"], found["untrained"]) > 0.3, found
        assert found["trained"] < 0.25, found
        assert found["distilled"] < 0.15, found
        assert found["distilled"] < found["trained"], found
