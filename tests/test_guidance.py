"""Guidance against exact answers: Bayes' rule on mixtures, the papers' own updates, exact posteriors of Gaussians."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from conditions import label
from diffsweep.diffusion import CLEAN, Denoise, GaussianMixture, Level, Sampler, Schedule, transfer
from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.guidance import (
    DPS,
    Autoguidance,
    ByClassifier,
    CFGpp,
    ClassifierFree,
    Clip,
    Dynamic,
    EachCondition,
    Guidance,
    Inpaint,
    Interval,
    Keep,
    Projected,
    Rescaled,
    Unguided,
    ZeroStar,
)
from diffsweep.diffusion.noise import SDE, Resample
from diffsweep.diffusion.schedules import VE, Cosine, Rectified, linear_betas
from diffsweep.diffusion.solvers import DPMpp2M, Euler, Heun
from diffsweep.diffusion.spacing import LogSNR, Time
from diffsweep.runs.load_fit import finished
from diffsweep.runs.stages import complete
from diffsweep.sweep.store.record import Run

CONF = Path(__file__).parent.parent / "conf"
WEIGHTS, MEANS, STDS = [0.2, 0.5, 0.3], [[-1.0, 0.5], [0.8, 0.8], [0.3, -1.2]], [0.3, 0.5, 0.4]
WHOLE = GaussianMixture.of(WEIGHTS, MEANS, STDS)
COMPONENTS = [GaussianMixture.of([1.0], [mean], [std]) for mean, std in zip(MEANS, STDS, strict=True)]
K = len(WEIGHTS)
SCHEDULES: list[Schedule] = [Cosine(), VE(), Rectified(), linear_betas()]
LEVEL = Level(0.6, 0.8)


class Labelled:
    """The exact denoiser of a mixture whose labels are its components. Counts its rows."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
        assert condition is not None
        self.calls.append(len(x))
        answers = torch.stack([one(x, level) for one in (*COMPONENTS, WHOLE)])
        label = condition["label"]
        return answers[label.value.masked_fill(~label.present, K), torch.arange(len(x))]


def points(n: int = 6) -> tuple[Tensor, Condition]:
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, Condition.of(label=torch.arange(n) % K)


def score(mixture: GaussianMixture, x: Tensor, level: Level) -> Tensor:
    """The gradient of the log-density, from the density itself."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(log_density(mixture, x, level).sum(), x)[0]


def log_density(mixture: GaussianMixture, x: Tensor, level: Level) -> Tensor:
    scale = ((level.alpha * mixture.stds) ** 2 + level.sigma**2).sqrt()
    normal = torch.distributions.Normal(level.alpha * mixture.means, scale[:, None])
    return torch.logsumexp(normal.log_prob(x[:, None]).sum(-1) + mixture.weights.log(), 1)


def tweedie(x: Tensor, level: Level, score: Tensor) -> Tensor:
    return (x + level.sigma**2 * score) / level.alpha


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_classifier_free_guidance_mixes_the_exact_scores(scale: float) -> None:
    x, labels = points()
    guided = ClassifierFree(scale)(Labelled(), [])(x, LEVEL, labels)
    without = score(WHOLE, x, LEVEL)
    with_ = torch.stack(
        [score(COMPONENTS[k], x[i : i + 1], LEVEL)[0] for i, k in enumerate(labels["label"].value.tolist())]
    )
    torch.testing.assert_close(guided, tweedie(x, LEVEL, without + scale * (with_ - without)))


def test_classifier_free_guidance_is_the_papers() -> None:
    """(1 + w) eps_with - w eps_without (arXiv 2207.12598, eq. 6) with scale = 1 + w."""
    x, labels = points()
    w, denoise = 1.5, Labelled()

    def eps(x0: Tensor) -> Tensor:
        return (x - LEVEL.alpha * x0) / LEVEL.sigma

    guided = eps(ClassifierFree(1 + w)(denoise, [])(x, LEVEL, labels))
    with_, without = eps(denoise(x, LEVEL, labels)), eps(denoise(x, LEVEL, labels.absent()))
    torch.testing.assert_close(guided, (1 + w) * with_ - w * without)


@pytest.mark.parametrize(
    ("guidance", "level", "rows"),
    [
        (Unguided(), LEVEL, [6]),
        (ClassifierFree(0.0), LEVEL, [6]),
        (ClassifierFree(1.0), LEVEL, [6]),
        (ClassifierFree(2.0), LEVEL, [12]),
        (Rescaled(1.0), LEVEL, [6]),
        (Rescaled(2.0), LEVEL, [12]),
        (CFGpp(0.5), LEVEL, [12]),
        (Interval(2.0, 0.5, 1.5), LEVEL, [12]),
        (Interval(1.0, 0.5, 1.5), LEVEL, [6]),
        (Interval(2.0, 0.5, 1.5), Level(1.0, 0.5), [6]),
        (Interval(2.0, 0.5, 1.5), Level(1.0, 1.5), [12]),
        (Interval(2.0, 0.5, 1.5), Level(0.0, 1.0), [6]),
        (Interval(2.0, 0.5, math.inf), Level(0.0, 1.0), [12]),
        (Autoguidance(WHOLE, 1.0), LEVEL, [6]),
        (Autoguidance(WHOLE, 2.0), LEVEL, [6]),
    ],
    ids=str,
)
def test_the_cost_is_one_pass_or_one_of_twice_the_rows(guidance: Guidance, level: Level, rows: list[int]) -> None:
    denoise = Labelled()
    guidance(denoise, [level, CLEAN])(*points()[:1], level, points()[1])
    assert denoise.calls == rows


def test_the_interval_guides_inside_and_only_there() -> None:
    x, labels = points()
    interval = Interval(3.0, 0.5, 1.5)(Labelled(), [])
    always = ClassifierFree(3.0)(Labelled(), [])
    for noise in (0.1, 0.5, 0.51, 1.0, 1.5, 1.51, 20.0):
        level = Level(1.0, noise)
        expected = always if 0.5 < noise <= 1.5 else Labelled()
        torch.testing.assert_close(interval(x, level, labels), expected(x, level, labels))


@given(phi=st.floats(0, 1), scale=st.floats(1.1, 20), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_rescaling_gives_each_sample_its_deviation_back(phi: float, scale: float, seed: int) -> None:
    x, labels = points()
    wanted, other = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3

    def denoise(x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
        return torch.cat([wanted, other])

    plain = ClassifierFree(scale)(denoise, [])(x, LEVEL, labels)
    got = Rescaled(scale, phi)(denoise, [])(wanted, LEVEL, labels)
    for i in range(len(x)):
        expected = phi * wanted[i].std() + (1 - phi) * plain[i].std()
        assert float(got[i].std()) == pytest.approx(float(expected))
        torch.testing.assert_close(got[i] / got[i].std(), plain[i] / plain[i].std())


def test_rescaling_leaves_single_numbers_alone() -> None:
    def denoise(x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
        return torch.tensor([[1.0], [0.0]])

    got = Rescaled(3.0, 1.0)(denoise, [])(torch.zeros(1, 1), LEVEL, label(0))
    torch.testing.assert_close(got, torch.tensor([[3.0]]))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
@pytest.mark.parametrize("strength", [0.0, 0.6, 1.0])
def test_cfgpp_is_the_papers_update(schedule: Schedule, strength: float) -> None:
    """x_s = alpha_s x0_guided + sigma_s eps_without (arXiv 2406.08070), along whole DDIM trajectories."""
    x, labels = points()
    sampler, denoise = Sampler(Euler(), Time(), 12), Labelled()
    levels = sampler.levels(schedule)
    guided = CFGpp(strength)(denoise, levels)
    steps = sampler.trajectory(guided, x, schedule=schedule, condition=labels)
    here = x * levels[0].sigma
    for (t, s), step in zip(itertools.pairwise(levels), steps, strict=True):
        with_, without = denoise(here, t, labels), denoise(here, t, labels.absent())
        eps = (here - t.alpha * without) / t.sigma
        here = s.alpha * (without + strength * (with_ - without)) + s.sigma * eps
        torch.testing.assert_close(step.x, here, rtol=1e-9, atol=1e-9)


def test_cfgpp_goes_with_solvers_that_ask_between_the_levels() -> None:
    x, labels = points()
    for solver in (Heun(), DPMpp2M()):
        sampler = Sampler(solver, LogSNR(), 40)
        guided = CFGpp()(Labelled(), sampler.levels(Cosine()))
        assert sampler(guided, x, schedule=Cosine(), condition=labels).isfinite().all()
    # A level that is one of the sampler's but for rounding must not be taken for a step of no length.
    levels = Sampler(Euler(), LogSNR(), 10).levels(Cosine())
    guided = CFGpp()(Labelled(), levels)
    close = levels[5].at(levels[5].noise * (1 + 1e-12))
    torch.testing.assert_close(guided(x, close, labels), guided(x, levels[5], labels))


def test_autoguidance_goes_away_from_the_weak_model() -> None:
    x, labels = points()
    weak = GaussianMixture.of([1.0], [[0.0, 0.0]], [1.0])
    denoise = Labelled()
    strong, bad = denoise(x, LEVEL, labels), weak(x, LEVEL)
    for scale in (0.0, 1.0, 2.5):
        guided = Autoguidance(weak, scale)(denoise, [])(x, LEVEL, labels)
        torch.testing.assert_close(guided, bad + scale * (strong - bad))


def exact_classifier(x: Tensor, level: Level, x0: Tensor) -> Tensor:
    """log p(k | x_t) of the mixture, up to a constant."""
    return torch.stack(
        [w.log() + log_density(one, x, level) for w, one in zip(WHOLE.weights, COMPONENTS, strict=True)], 1
    )


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_an_exact_classifier_gives_the_exact_conditional(schedule: Schedule, context: Callable[[], Any]) -> None:
    guided = ByClassifier(exact_classifier)(WHOLE, [])
    for t in (0.05, 0.4, 0.9):
        level = schedule.level(t)
        with context():
            # Made here: tensors made in inference mode are what a sampler hands over.
            x, labels = points()
            x = x * level.sigma
            got = guided(x, level, labels)
        assert not got.requires_grad
        torch.testing.assert_close(got, Labelled()(x, level, labels), rtol=1e-7, atol=1e-7)


def test_a_classifier_of_clean_data_is_differentiated_through_the_denoiser() -> None:
    x, labels = points()

    def clean(x: Tensor, level: Level, x0: Tensor) -> Tensor:
        return x0 @ torch.tensor([[1.0, -2.0, 0.5], [0.3, 1.0, -1.0]], dtype=torch.float64)

    def log_p(x: Tensor) -> Tensor:
        return torch.log_softmax(clean(x, LEVEL, WHOLE(x, LEVEL)), 1)[torch.arange(len(x)), labels["label"].value]

    h = 1e-6
    steps = h * torch.eye(2, dtype=torch.float64)
    slope = torch.stack([(log_p(x + step) - log_p(x - step)) / (2 * h) for step in steps], 1)
    expected = WHOLE(x, LEVEL) + 2.0 * LEVEL.sigma**2 / LEVEL.alpha * slope
    torch.testing.assert_close(ByClassifier(clean, 2.0)(WHOLE, [])(x, LEVEL, labels), expected, rtol=1e-6, atol=1e-6)
    # Pure noise says nothing about the label, and the formula divides by alpha.
    pure = Level(0.0, 1.0)
    torch.testing.assert_close(ByClassifier(clean)(WHOLE, [])(x, pure, labels), WHOLE(x, pure))


def random_answers(seed: int = 0) -> tuple[Denoise, Tensor, Tensor, Tensor]:
    """A denoiser with fixed answers with and without a condition, and x with both: float64 (6, 3, 4)."""
    x, with_, without = torch.randn(3, 6, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def denoise(x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
        assert condition is not None
        told = condition["label"].present.view(-1, 1, 1)
        return torch.where(told, with_.repeat(len(x) // 6, 1, 1), without.repeat(len(x) // 6, 1, 1))

    return denoise, x, with_, without


def test_zero_star_is_the_papers() -> None:
    """v = (1 - w) s v_without + w v_with, s the projection of one on the other; x0 = x - t v on the path of a flow."""
    denoise, x, with_, without = random_answers()
    labels, t = Condition.of(label=torch.zeros(6, dtype=torch.int64)), 0.7
    levels = [Level(0.0, 1.0), Level(1 - t, t), Level(0.8, 0.2), CLEAN]
    guided = ZeroStar(3.0, zero_steps=1)(denoise, levels)
    v_with, v_without = ((x - x0) / t for x0 in (with_, without))
    for i, found in enumerate((x - guided(x, levels[1], labels)) / t):
        s = float((v_with[i] * v_without[i]).sum() / v_without[i].square().sum())
        torch.testing.assert_close(found, (1 - 3.0) * s * v_without[i] + 3.0 * v_with[i])
    # Nothing moves at the noisiest level, and only there.
    torch.testing.assert_close(guided(x, levels[0], labels), x)
    plain = ZeroStar(3.0, zero_steps=0)(denoise, levels)
    assert not plain(x, levels[0], labels).allclose(x)
    torch.testing.assert_close(guided(x, levels[2], labels), plain(x, levels[2], labels))
    # A condition that changes nothing leaves the model's own answer.
    same = ZeroStar(5.0)(lambda x, level, condition=None: torch.cat([with_, with_]), levels)
    torch.testing.assert_close(same(x, levels[1], labels), with_)


def test_projected_guidance_is_the_papers() -> None:
    """Algorithm 1 of arXiv 2410.02416, one sample at a time, over three steps."""
    labels = Condition.of(label=torch.zeros(6, dtype=torch.int64))
    scale, parallel, radius, momentum = 4.0, 0.25, 0.5, -0.5
    levels = [Level(0.0, 1.0), Level(0.5, 0.9), Level(0.8, 0.6), CLEAN]
    answers = [random_answers(seed) for seed in range(3)]
    current = [0]

    def denoise(x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
        return answers[current[0]][0](x, level, condition)

    guided = Projected(scale, parallel, radius, momentum)(denoise, levels)
    for _ in range(2):
        average = torch.zeros(6, 3, 4, dtype=torch.float64)
        for step in range(3):
            current[0] = step
            _, x, with_, without = answers[step]
            found = guided(x, levels[step], labels)
            average = with_ - without + momentum * average
            for i in range(6):
                d = average[i] * min(1.0, radius * 12**0.5 / float(average[i].norm()))
                unit = with_[i] / with_[i].norm()
                along = (d * unit).sum() * unit
                expected = with_[i] + (scale - 1) * (d - along + parallel * along)
                torch.testing.assert_close(found[i], expected)
    whole = Projected(scale, 1.0, None, 0.0)(answers[0][0], levels)
    torch.testing.assert_close(whole(answers[0][1], LEVEL, labels), answers[0][3].lerp(answers[0][2], scale))


@pytest.mark.parametrize("solver", [Euler(), Heun()], ids=["one call a step", "two calls"])
def test_momentum_is_that_of_one_batch_and_lasts_from_step_to_step(solver: Any) -> None:
    x, labels = points()
    sampler = Sampler(solver, Time(), 8)
    found = {}
    for momentum in (-0.5, 0.0):
        guided = Projected(3.0, 0.0, None, momentum)(Labelled(), sampler.levels(Cosine()))
        first, again = (sampler(guided, x, schedule=Cosine(), condition=labels) for _ in range(2))
        assert torch.equal(first, again)
        found[momentum] = first
    assert (found[-0.5] - found[0.0]).abs().max() > 1e-3
    # At a level that is asked about twice it goes on.
    levels = sampler.levels(Cosine())
    guided, (start, level) = Projected(3.0, 1.0, None, -0.5)(Labelled(), levels), (levels[0], levels[2])
    guided(x * start.sigma, start, labels)
    with_, without = (Labelled()(x, level, told) for told in (labels, labels.absent()))
    first, second = ((guided(x, level, labels) - with_) / 2 for _ in range(2))
    torch.testing.assert_close(second, with_ - without - 0.5 * first)


def test_each_condition_has_its_scale() -> None:
    """x0_none + s1 (x0_1 - x0_none) + s2 (x0_12 - x0_1), of answers that say what they were told."""

    def denoise(x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
        assert condition is not None
        a, b = (condition[name].present.double() * condition[name].value for name in ("label", "edges"))
        return (a + 10 * b + 100 * a * b)[:, None].expand_as(x)

    condition = Condition.of(label=torch.tensor([2.0, 3.0]), edges=torch.tensor([5.0, 7.0]))
    x = torch.zeros(2, 1, dtype=torch.float64)
    found = EachCondition(2.0, {"edges": 0.5})(denoise, [])(x, LEVEL, condition)
    a, b = (condition[name].value.double() for name in ("label", "edges"))
    torch.testing.assert_close(found[:, 0], 2.0 * a + 0.5 * (10 * b + 100 * a * b))
    with pytest.raises(ValueError, match=r"scales=\{depth: \.\.\.\} names no condition: choose edges or label"):
        EachCondition(2.0, {"depth": 1.0})(denoise, [])(x, LEVEL, condition)


def test_one_condition_of_each_is_classifier_free_guidance() -> None:
    x, labels = points()
    expected = ClassifierFree(3.0)(Labelled(), [])(x, LEVEL, labels)
    torch.testing.assert_close(EachCondition(3.0)(Labelled(), [])(x, LEVEL, labels), expected)


def test_a_negative_condition_is_what_guidance_leads_away_from() -> None:
    x, labels = points()
    other = Condition.of(label=(labels["label"].value + 1) % K)
    told = Condition(labels.entries, negative=other)
    with_, without = Labelled()(x, LEVEL, labels), Labelled()(x, LEVEL, other)
    torch.testing.assert_close(ClassifierFree(3.0)(Labelled(), [])(x, LEVEL, told), without.lerp(with_, 3.0))


@given(seed=st.integers(0, 1000), spread=st.floats(0.1, 5), quantile=st.floats(0.05, 1))
@settings(max_examples=25, deadline=None)
def test_thresholds_keep_what_is_in_range_and_the_order(seed: int, spread: float, quantile: float) -> None:
    x0 = torch.randn(5, 3, 7, generator=torch.Generator().manual_seed(seed)) * spread
    torch.testing.assert_close(Clip()(x0), torch.minimum(torch.maximum(x0, -torch.ones(())), torch.ones(())))
    got = Dynamic(quantile)(x0)
    assert float(got.abs().max()) <= 1 + 1e-6
    inside = x0.abs().flatten(1).amax(1) <= 1
    torch.testing.assert_close(got[inside], x0[inside])
    for i in range(len(x0)):
        torch.testing.assert_close(Dynamic(quantile)(x0[i : i + 1])[0], got[i])
        rank = max(1, round(quantile * 21))
        m = max(1.0, float(x0[i].abs().flatten().sort().values[rank - 1]))
        torch.testing.assert_close(got[i], x0[i].clamp(-m, m) / m)


def test_every_guidance_hands_its_answer_to_the_output_handler() -> None:
    x, labels = points()
    options: list[tuple[Callable[..., Guidance], Denoise]] = [
        (Unguided, Labelled()),
        (lambda output: ClassifierFree(9.0, output), Labelled()),
        (lambda output: Interval(9.0, output=output), Labelled()),
        (lambda output: Interval(9.0, 30.0, 40.0, output), Labelled()),
        (lambda output: Rescaled(9.0, output=output), Labelled()),
        (lambda output: Autoguidance(WHOLE, 9.0, output), Labelled()),
        (lambda output: ByClassifier(exact_classifier, 9.0, output), WHOLE),
    ]
    for option, denoise in options:
        kept, clipped = (option(output)(denoise, [CLEAN])(x, LEVEL, labels) for output in (Keep(), Clip(0.3)))
        torch.testing.assert_close(clipped, kept.clamp(-0.3, 0.3))
        assert not torch.equal(clipped, kept)
    # CFG++ bounds the picture it aims at, and the noise is what the unguided x0 leaves.
    guided = CFGpp(1.0, Clip(0.3))(Labelled(), [LEVEL, CLEAN])(x, LEVEL, labels)
    torch.testing.assert_close(guided, Labelled()(x, LEVEL, labels).clamp(-0.3, 0.3))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ClassifierFree(-1.0), "^scale=-1.0 must be 0 or more"),
        (lambda: ClassifierFree(math.nan), "^scale=nan must be 0 or more"),
        (lambda: ClassifierFree("big"), "^scale=big must be 0 or more"),  # pyright: ignore[reportArgumentType]
        (lambda: CFGpp(1.5), "^strength=1.5 must be between 0 and 1"),
        (lambda: Rescaled(2.0, 1.5), "^phi=1.5 must be between 0 and 1"),
        (lambda: Interval(2.0, 3.0, 1.0), "^noise_min=3.0 must be at least 0 and below noise_max=1.0"),
        (lambda: Autoguidance(WHOLE, math.inf), "^scale=inf"),
        (lambda: ByClassifier(exact_classifier, -2.0), "^scale=-2.0"),
        (lambda: Clip(0.0), "^bound=0.0 must be above 0"),
        (lambda: Dynamic(1.5), "^quantile=1.5 must be above 0 and at most 1"),
        (lambda: ClassifierFree()(Labelled(), [])(points()[0], LEVEL), "needs a condition"),
    ],
)
def test_nonsense_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


class Correlated:
    """The exact denoiser of a Gaussian: E[x0 | x] = m + alpha S (alpha^2 S + sigma^2)^-1 (x - alpha m)."""

    mean = torch.tensor([0.4, -0.3], dtype=torch.float64)
    covariance = torch.tensor([[1.0, 0.72], [0.72, 0.81]], dtype=torch.float64)

    def jacobian(self, level: Level) -> Tensor:
        total = level.alpha**2 * self.covariance + level.sigma**2 * torch.eye(2, dtype=torch.float64)
        return level.alpha * self.covariance @ total.inverse()

    def __call__(self, x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
        return self.mean + (x - level.alpha * self.mean) @ self.jacobian(level).T


GAUSSIAN = Correlated()
KNOWN = 1.6
MARGINAL = float(GAUSSIAN.mean[1])
CONDITIONAL = MARGINAL + 0.72 * (KNOWN - float(GAUSSIAN.mean[0]))
CONDITIONAL_STD = (0.81 - 0.72**2) ** 0.5


def drawn(sampler: Sampler, denoise: Denoise, n: int = 4000) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return sampler(denoise, noise, schedule=Cosine(), generator=generator)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_inpainting_keeps_what_is_known_and_draws_the_rest_towards_its_conditional(eta: float) -> None:
    known, mask = torch.tensor([KNOWN, math.nan], dtype=torch.float64), torch.tensor([True, False])
    sampler = Sampler(Euler(), LogSNR(), 100, SDE(eta))
    x0 = drawn(sampler, Inpaint(GAUSSIAN, known, mask))
    assert torch.all(x0[:, 0] == KNOWN)
    assert x0.isfinite().all()
    # Replacement is biased towards the marginal: all that is true of it is that it lies between.
    assert 0.25 < (float(x0[:, 1].mean()) - MARGINAL) / (CONDITIONAL - MARGINAL) < 1
    everything = Inpaint(GAUSSIAN, torch.tensor([KNOWN, 0.2], dtype=torch.float64), torch.tensor(True))
    assert torch.all(drawn(sampler, everything, 5) == torch.tensor([KNOWN, 0.2], dtype=torch.float64))
    nothing = Inpaint(GAUSSIAN, known, torch.tensor(False))
    assert torch.equal(drawn(sampler, nothing, 5), drawn(sampler, GAUSSIAN, 5))


def test_going_back_and_forth_takes_inpainting_to_the_exact_conditional() -> None:
    known, mask = torch.tensor([KNOWN, 0.0], dtype=torch.float64), torch.tensor([True, False])
    x0 = drawn(Sampler(Euler(), LogSNR(), 3000, Resample(10, 10)), Inpaint(GAUSSIAN, known, mask), 2000)
    assert float(x0[:, 1].mean()) == pytest.approx(CONDITIONAL, abs=0.08)
    assert float(x0[:, 1].std()) == pytest.approx(CONDITIONAL_STD, abs=0.05)


def test_the_known_part_walks_the_exact_path_from_its_noise() -> None:
    known, mask = torch.tensor([KNOWN, 0.0], dtype=torch.float64), torch.tensor([True, False])
    sampler = Sampler(Heun(), LogSNR(), 41)
    noise = torch.randn(3, 2, dtype=torch.float64)
    start = sampler.levels(Cosine())[0]
    eps = noise[:, 0] - start.alpha / start.sigma * KNOWN
    for step in sampler.trajectory(Inpaint(GAUSSIAN, known, mask), noise, schedule=Cosine()):
        torch.testing.assert_close(step.x[:, 0], step.level.alpha * KNOWN + step.level.sigma * eps)


def first(x0: Tensor) -> Tensor:
    return x0[:, :1]


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_dps_step_is_the_papers(context: Callable[[], Any]) -> None:
    """x_s = x_s' - zeta grad |y - A x0(x_t)|^2, zeta = scale / |y - A x0(x_t)| (arXiv 2209.14687, algorithm 1)."""
    sampler = Sampler(Euler(), LogSNR(), 10)
    levels, scale = sampler.levels(Cosine()), 0.3
    operator = torch.tensor([[1.0, 0.5], [0.0, 2.0], [-1.0, 1.0]], dtype=torch.float64)
    for t, s in itertools.pairwise(levels):
        with context():
            x = torch.randn(5, 2, dtype=torch.float64)
            y = torch.randn(5, 3, dtype=torch.float64)
            dps = DPS(GAUSSIAN, lambda x0: x0 @ operator.T, y, levels, scale)
            got = transfer(x, t, s, dps(x, t))
        x0 = GAUSSIAN(x, t)
        residual = y - x0 @ operator.T
        # d|r|^2 / dx = -2 J' A' r for a linear denoiser.
        gradient = -2 * residual @ operator @ GAUSSIAN.jacobian(t)
        expected = transfer(x, t, s, x0) - scale * gradient / residual.norm(dim=1, keepdim=True)
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8)


def test_dps_ends_at_the_measurement_by_default() -> None:
    """With the paper's scale for images, 1, it ended 1.0 beside a measured number."""
    mixture = GaussianMixture.of([0.5, 0.5], [[-1.0, -1.0], [1.0, 1.0]], [0.1, 0.1])
    sampler, y = Sampler(Euler(), LogSNR(), nfe=200), torch.full((64, 1), 1.0)
    dps = DPS(mixture, lambda x0: x0[:, :1], y, sampler.levels(Cosine()))
    noise = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    x0 = sampler(dps, noise, schedule=Cosine())
    assert float((x0[:, :1] - y).abs().mean()) < 0.15
    assert bool((x0[:, 1] > 0).all())


def test_dps_meets_the_measurement_and_moves_what_is_not_measured() -> None:
    sampler = Sampler(Euler(), LogSNR(), 200, SDE(1.0))
    y = torch.full((2000, 1), KNOWN, dtype=torch.float64)
    x0 = drawn(sampler, DPS(GAUSSIAN, first, y, sampler.levels(Cosine()), 0.1), 2000)
    # The last displacement does not shrink with the error: at most 2 scale from the measurement.
    assert float((x0[:, 0] - KNOWN).abs().max()) < 0.2
    assert abs(float(x0[:, 1].mean()) - CONDITIONAL) < abs(MARGINAL - CONDITIONAL) / 4
    free = DPS(GAUSSIAN, first, y[:5], sampler.levels(Cosine()), 0.0)
    torch.testing.assert_close(drawn(sampler, free, 5), drawn(sampler, GAUSSIAN, 5))


TINY = [
    "dataset=mixture",
    "backbone=mlp",
    "backbone.width=16",
    "condition=label",
    "training.steps=3",
    "training.warmup=0",
    "evaluation.samples=6",
    "evaluation.batch_size=4",
    "trainer.progress=false",
    "sampler=ddim",
    "sampler.nfe=10",
]


def result(runs: Path, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=[*TINY, f"paths.runs={runs}", *overrides])
    chosen = next((word.partition("=")[2] for word in overrides if word.startswith("guidance=")), "none")
    done = complete(cfg, Run.of(cfg, {"guidance": chosen}), list(overrides))
    assert done is not None
    return done.flat()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guidance")
    result(folder)
    return folder


def test_guidance_shares_the_training_and_its_cost_is_counted(runs: Path) -> None:
    plain, guided = result(runs), result(runs, "guidance=cfg")
    assert plain["fit"] == guided["fit"]
    assert plain["cell"] != guided["cell"]
    assert (plain["guidance"], plain["nfe"], plain["nfe_asked"]) == ("none", 10, 10)
    assert (guided["guidance"], guided["nfe"], guided["nfe_asked"]) == ("cfg", 20, 10)
    assert result(runs, "guidance=cfg", "guidance.scale=1")["nfe"] == 10
    # Time-spaced on the cosine schedule: levels 9, 8 ... 1 of 10 have noise tan(pi t / 2), 1 at the half.
    inside = sum(0.5 < math.tan(math.pi * i / 20) <= 1.5 for i in range(1, 10))
    limited = result(runs, "guidance=interval", "guidance.noise_min=0.5", "guidance.noise_max=1.5")
    assert limited["nfe"] == 10 + inside
    assert 0 < inside < 9


def test_a_weaker_model_is_a_finished_fit(runs: Path) -> None:
    weak = str(result(runs)["fit"])
    strong = result(runs, "training.steps=4", "guidance=autoguidance", f"guidance.weak='{weak}'")
    assert strong["fit"] != weak
    assert strong["nfe"] == 20
    before = torch.get_rng_state()
    model = finished(runs, weak)
    assert torch.equal(before, torch.get_rng_state())
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    saved = runs / "fits" / weak / "checkpoints" / "ema.safetensors"
    for name, value in load_file(saved).items():
        assert torch.equal(model.backbone.state_dict()[name], value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["guidance=autoguidance"], "guidance.weak=null must name a finished fit"),
        (["guidance=autoguidance", "guidance.weak=abcdefabcdef"], "no finished fit 'abcdefabcdef': choose one of"),
        (["guidance=autoguidance", "guidance.weak=123456789012"], "in quotes"),
        (["guidance=cfg", "condition=none"], "choose condition=label"),
        (["guidance=cfg", "condition.label.drop=0"], "set condition.label.drop=0.1"),
        (["guidance=classifier"], "does not go with this model and dataset="),
        (["guidance=classifier", "guidance.classifier.name=cats"], "choose one of digits"),
    ],
)
def test_guidance_that_cannot_work_is_refused_before_training(runs: Path, overrides: list[str], words: str) -> None:
    before = sorted(runs.rglob("*"))
    with pytest.raises(ValueError) as caught:
        result(runs, "training.steps=5", *overrides)
    assert words in str(caught.value)
    assert sorted(runs.rglob("*")) == before


def test_a_fit_that_is_not_finished_is_not_there(runs: Path) -> None:
    (runs / "fits" / "000000000000").mkdir()
    with pytest.raises(ValueError, match="no finished fit '000000000000': choose one of"):
        finished(runs, "000000000000")
    with pytest.raises(ValueError, match="train one first"):
        finished(runs / "nowhere", "000000000000")


def test_the_shipped_classifier_guides_images_of_a_model_without_labels(tmp_path: Path) -> None:
    changes = (
        "dataset=digits",
        "backbone=unet",
        "condition=none",
        "backbone.multipliers=[1]",
        "guidance=classifier",
    )
    done = result(tmp_path, *changes, "sampler=dpmpp_2m", "sampler.nfe=4")
    assert (done["guidance"], done["nfe"]) == ("classifier", 4)
