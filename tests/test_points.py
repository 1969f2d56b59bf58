"""Distances of points: their closed forms, what scipy and brute force say, and that they grow with every damage.

And the likelihood of held-out points, against the exact density.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from scipy.optimize import linprog
from scipy.spatial.distance import cdist, pdist
from scipy.stats import energy_distance
from torch import Tensor

from diffsweep.conditioners import Label
from diffsweep.data.mixture import RingOfGaussians
from diffsweep.diffusion import GaussianMixture, Level
from diffsweep.diffusion.condition import Condition
from diffsweep.diffusion.schedules import Cosine
from diffsweep.evaluation.energy import Energy
from diffsweep.evaluation.evaluate import Evaluation
from diffsweep.evaluation.features import Features
from diffsweep.evaluation.frechet import Frechet
from diffsweep.evaluation.identity import identity
from diffsweep.evaluation.metric import Metric, Numbers, Real
from diffsweep.evaluation.mmd import MMD
from diffsweep.evaluation.pairs import among, discrepancy
from diffsweep.evaluation.wasserstein import Wasserstein
from diffsweep.runs import stages
from diffsweep.runs.build import evaluation_settings, make_evaluation
from diffsweep.runs.instantiate import make
from diffsweep.scoring.measure import Baseline
from diffsweep.scoring.model_metrics import Likelihood, ModelMetric, measure_model
from diffsweep.sweep.store.record import Run
from fixed_reference import Fixed
from tiny import TINY

METRICS: list[Metric] = [Wasserstein(), Energy(), MMD(), Frechet()]


def points(x: Tensor) -> Fixed:
    return Fixed(Features({"features": x}))


def normal(n: int, d: int, seed: int, scale: float = 1.0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def value(metric: Metric, drawn: Tensor, real: Tensor, block: int | None = None) -> float:
    return metric.prepare(Features({"features": drawn}), points(real))(block)[metric.short]


# --- Wasserstein ----------------------------------------------------------------------------------------------------


def test_w2_on_a_line_pairs_points_in_their_order() -> None:
    x, y = normal(301, 1, 0), normal(301, 1, 1, 2.0)
    exact = (x.sort(dim=0).values - y.sort(dim=0).values).square().mean().sqrt()
    assert value(Wasserstein(), x, y) == pytest.approx(float(exact), rel=1e-12)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.3, -0.4), (30.0, 40.0)])
def test_w2_of_a_shifted_cloud_is_the_length_of_the_shift(shift: tuple[float, float]) -> None:
    x = normal(200, 2, 0)
    y = x[torch.randperm(200, generator=torch.Generator().manual_seed(1))] + torch.tensor(shift)
    assert value(Wasserstein(), x, y) == pytest.approx(math.hypot(*shift), rel=1e-6, abs=1e-7)


def test_w2_is_the_least_over_all_pairings() -> None:
    x, y = normal(6, 2, 0), normal(6, 2, 1)
    least = min(float((x[list(order)] - y).square().sum(1).mean()) for order in itertools.permutations(range(6)))
    assert value(Wasserstein(), x, y) ** 2 == pytest.approx(least, rel=1e-12)


def test_w2_uses_real_points_in_turn_where_there_are_fewer() -> None:
    y = normal(50, 2, 0)
    assert value(Wasserstein(), y.repeat(2, 1), y) == 0
    assert value(Wasserstein(), y.repeat(2, 1)[:75], y) < 0.5


def test_w2_of_more_points_than_are_looked_at_takes_as_many_of_each_block() -> None:
    """Every block is a cloud of its own at 10 k: a choice that left one out would be far from the real points."""
    blocks = Features({"features": normal(2000, 1, 0)}).blocks
    where = torch.cat([torch.full((len(block), 1), 10.0 * k) for k, block in enumerate(blocks)])
    drawn, real = normal(2000, 1, 1, 0.01) + where, normal(400, 1, 2, 0.01) + where[::5]
    assert value(Wasserstein(points=400), drawn, real) < 0.05
    with pytest.raises(ValueError, match=r"points=19 must be a whole number, 20 or more"):
        Wasserstein(points=19)


def transport(x: np.ndarray, y: np.ndarray) -> float:
    """The least mean cost of carrying equal weights on x to equal weights on y, by linear programming."""
    n, m = len(x), len(y)
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    weights = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
    found = linprog(cdist(x, y, "sqeuclidean").ravel(), A_eq=np.vstack([rows, columns]), b_eq=weights, method="highs")
    return float(found.fun)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_w2_without_a_block_is_that_of_the_others_to_first_order(scale: float) -> None:
    """Prices that are feasible bound the optimum from below; that they are the right ones shows in how little."""
    x, y = normal(60, 2, 0, scale), normal(60, 2, 1)
    blocks = Features({"features": x}).blocks
    whole, moved, missed = value(Wasserstein(), x, y) ** 2, [], []
    for k in range(0, 20, 3):
        left = np.delete(x.numpy(), blocks[k].numpy(), axis=0)
        exact, ours = transport(left, y.numpy()), value(Wasserstein(), x, y, k) ** 2
        assert ours <= exact + 1e-9
        moved.append(exact - whole)
        missed.append(exact - ours)
    assert np.mean(missed) < 0.5 * np.std(moved)


# --- pairs ----------------------------------------------------------------------------------------------------------


def test_energy_is_the_square_of_scipys_without_its_bias() -> None:
    x, y = normal(300, 1, 0), normal(200, 1, 1, 1.5)
    biased = energy_distance(x[:, 0].numpy(), y[:, 0].numpy()) ** 2
    bias = pdist(x.numpy()).mean() / 300 + pdist(y.numpy()).mean() / 200
    assert value(Energy(), x, y) == pytest.approx(biased - bias, rel=1e-9)


def folded(mean: float, variance: float) -> float:
    """E|Z| of Z ~ N(mean, variance)."""
    std = math.sqrt(variance)
    return std * math.sqrt(2 / math.pi) * math.exp(-(mean**2) / (2 * variance)) + mean * math.erf(
        mean / (std * math.sqrt(2))
    )


def test_energy_of_gaussians_is_the_closed_form() -> None:
    exact = 2 * folded(0.7, 1 + 4) - folded(0, 2) - folded(0, 8)
    # Quantiles in place of random draws, which would leave an error of several per cent.
    x = torch.special.ndtri((torch.arange(3000, dtype=torch.float64) + 0.5) / 3000)[:, None]
    assert value(Energy(), x + 0.7, 2 * x) == pytest.approx(exact, rel=5e-3)


@pytest.mark.parametrize("widths", [1, 3])
def test_mmd_of_gaussians_is_the_closed_form(widths: int) -> None:
    """E exp(-|Z|^2 / (2 s^2)) of Z ~ N(m, v I) in the plane is s^2 / (s^2 + v) exp(-|m|^2 / (2 (s^2 + v)))."""
    x, y = normal(4000, 2, 0, 0.5) + torch.tensor([0.6, 0.8]), normal(4000, 2, 1)
    exact = 0.0
    # The distance of two points of N(0, I) in the plane is sqrt(2) Rayleigh, whose median is sqrt(2 log 2).
    for s2 in (4 * math.log(2) / 4**k for k in range(widths)):
        near, own, cross = (s2 / (s2 + 2)), (s2 / (s2 + 0.5)), (s2 / (s2 + 1.25))
        exact += (near + own - 2 * cross * math.exp(-1 / (2 * (s2 + 1.25)))) / widths
    assert value(MMD(widths), x, y) == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("metric", [Energy(), MMD()], ids=lambda metric: metric.short)
def test_without_bias_equals_are_zero_on_average_from_few_samples(metric: Metric) -> None:
    real = normal(2000, 2, 0)
    kernel = metric.kernel(real) if isinstance(metric, MMD) else lambda x, y: -torch.cdist(x, y)
    found = []
    for first in range(0, 2000, 10):
        x, y = real[first : first + 5], real[first + 5 : first + 10]
        found.append(discrepancy(x, y, [torch.arange(5)], kernel, among(y, kernel))(None))
    error = np.std(found, ddof=1) / math.sqrt(len(found))
    assert abs(np.mean(found)) < 3 * error
    assert min(found) < 0 < max(found)


@pytest.mark.parametrize("metric", [Energy(), MMD()], ids=lambda metric: metric.short)
def test_pairs_without_a_block_are_those_of_the_other_samples(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(103, 3, 0), normal(71, 3, 1) + 0.3
    blocks = Features({"features": x}).blocks
    before = [value(metric, x, y, k) for k in (None, 0, 7, 19)]
    # In pieces of a few rows it must be the same.
    monkeypatch.setattr("diffsweep.evaluation.pairs._AT_ONCE", 200)
    assert [value(metric, x, y, k) for k in (None, 0, 7, 19)] == pytest.approx(before, rel=1e-9)
    for k, found in zip((0, 7, 19), before[1:], strict=True):
        left = torch.from_numpy(np.delete(x.numpy(), blocks[k].numpy(), axis=0))
        assert found == pytest.approx(value(metric, left, y), rel=1e-9)


def test_pairs_refuse_what_makes_none() -> None:
    with pytest.raises(ValueError, match="at least 2 samples on each side, not 1"):
        value(Energy(), normal(5, 2, 0), normal(1, 2, 0))
    with pytest.raises(ValueError, match="half of the distances between real samples are 0"):
        value(MMD(), normal(5, 2, 0), torch.zeros(9, 2))
    with pytest.raises(ValueError, match="widths=0"):
        MMD(widths=0)


# --- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "power"), list(zip(METRICS, (1, 1, 0, 2), strict=True)), ids=[metric.short for metric in METRICS]
)
def test_a_distance_has_its_unit_and_sees_no_difference_of_place(metric: Metric, power: int) -> None:
    x, y = normal(200, 2, 0, 0.7), normal(200, 2, 1)
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    far = torch.tensor([5.0, -7.0], dtype=torch.float64)
    plain = value(metric, x, y)
    assert value(metric, 3 * x, 3 * y) == pytest.approx(3**power * plain, rel=1e-6)
    assert value(metric, x @ turn + far, y @ turn + far) == pytest.approx(plain, rel=1e-6)


@pytest.fixture(scope="module")
def ring() -> tuple[Fixed, Tensor, Tensor]:
    """Real points, and more held-out ones with their labels."""
    train, test = RingOfGaussians(size=600).load("train"), RingOfGaussians(size=2000).load("test")
    return points(train.x), test.x, test.labels


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.short)
def test_a_distance_grows_with_noise(metric: Metric, ring: tuple[Fixed, Tensor, Tensor]) -> None:
    real, x, _ = ring
    noise = normal(600, 2, 3).float()
    found = [value(metric, x[:600] + std * noise, real.features["features"]) for std in (0.0, 0.2, 0.4, 0.8)]
    assert found == sorted(found)
    assert found[-1] > 2 * found[0]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.short)
def test_a_distance_grows_with_every_mode_that_is_dropped(metric: Metric, ring: tuple[Fixed, Tensor, Tensor]) -> None:
    real, x, labels = ring
    found = []
    for dropped in range(5):
        found.append(value(metric, x[labels >= dropped][:600], real.features["features"]))
    assert found == sorted(found)
    assert found[1] > 1.2 * found[0]


def test_only_frechet_is_blind_to_shape(ring: tuple[Fixed, Tensor, Tensor]) -> None:
    """A Gaussian with the ring's mean and covariance: why points are ranked by something else."""
    real, x, _ = ring
    blob = normal(600, 2, 4) @ torch.linalg.cholesky(real.moments().cov).T + real.moments().mean
    ratios = {
        metric.short: value(metric, blob, real.features["features"]) / value(metric, x[:600], real.features["features"])
        for metric in METRICS
    }
    assert ratios["fd"] < 3
    assert min(abs(ratios[short]) for short in ("w2", "energy", "mmd")) > 3


def test_every_distance_of_points_comes_with_its_interval(ring: tuple[Fixed, Tensor, Tensor]) -> None:
    real, x, _ = ring
    found = Evaluation(identity(), METRICS).measure(Features({"features": x[:200] + 0.2}), real)
    assert list(found) == ["w2_points", "energy_points", "mmd_points", "fd_points"]
    for estimate in found.values():
        low, high = estimate.interval
        assert low < estimate.value < high
        assert high - low < 2 * estimate.value


# --- what follows from real points alone ------------------------------------------------------------------------------


class Counted(Energy):
    """How often the floor was measured."""

    times = 0

    def prepare(self, drawn: Features, real: Real) -> Numbers:
        Counted.times += 1
        return super().prepare(drawn, real)


def test_the_floor_and_what_is_known_of_real_points_are_computed_once(tmp_path: Path) -> None:
    dataset, evaluation = RingOfGaussians(size=300), Evaluation(identity(), [Counted(), MMD()])

    def known(
        evaluation: Evaluation = evaluation, *overrides: str, **asked: bool
    ) -> tuple[Real, dict[str, float], int]:
        before = Counted.times
        found = Baseline.of(
            dataset, evaluation, evaluation_settings(config(f"paths.cache={tmp_path}", *overrides)), **asked
        )
        return found.reference, dict(found.floor), Counted.times - before

    reference, floor, times = known()
    assert times == 1
    assert set(floor) == {"energy_points", "mmd_points"}
    assert known()[1:] == (floor, 0)
    real, held_out = (dataset.load(split).x for split in ("train", "test"))
    chosen = torch.randperm(300, generator=torch.Generator().manual_seed(0))[:64]
    assert floor["energy_points"] == pytest.approx(value(Energy(), held_out[chosen], real), rel=1e-9)
    # Whatever it depends on, another floor is measured.
    for other in (["evaluation.samples=63"], ["evaluation.seed=1"], ["evaluation.reference=test"]):
        assert known(evaluation, *other)[2] == 1, other
    assert known(balanced=True)[2] == 1
    assert known(Evaluation(identity(), [Counted(), MMD(3)]))[2] == 1
    assert known()[1:] == (floor, 0)
    drawn = Features({"features": held_out[:50]})
    assert evaluation.values(drawn, reference) == evaluation.values(drawn, points(real))
    # A file that is cut short or altered is not believed.
    whole = {path: path.read_bytes() for path in tmp_path.glob("numbers-*.json")}
    for damage in (lambda content: content[:-1], lambda content: content.replace(b"0.", b"1."), lambda content: b"[]"):
        for path, content in whole.items():
            path.write_bytes(damage(content))
        assert known()[1:] == (floor, 1)


# --- likelihood -----------------------------------------------------------------------------------------------------


def test_nll_of_the_exact_denoiser_is_that_of_the_density() -> None:
    dataset = RingOfGaussians(size=40)
    exact = GaussianMixture.of(dataset.weights.tolist(), dataset.means.tolist(), dataset.stds.tolist())
    (nll,) = measure_model([Likelihood(steps=60)], exact, Cosine(), dataset, conditioners={}, batch_size=32)
    entropy = -exact.log_prob(dataset.load("test").x.double())
    assert nll.value == pytest.approx(float(entropy.mean()), abs=1e-2)
    assert nll.examples == 40
    assert nll.half is not None
    # Twenty blocks of two: the standard error is about that of a mean of forty.
    error = nll.half / 2.093
    assert error == pytest.approx(float(entropy.std()) / math.sqrt(40), rel=0.4)


def test_nll_of_a_conditional_model_is_given_the_label() -> None:
    dataset = RingOfGaussians(size=40)
    means = dataset.means.float()

    def told(x: Tensor, level: Level, condition: Condition | None = None) -> Tensor:
        """E[x0 | x, label] of one Gaussian."""
        assert condition is not None
        variance = dataset.std**2
        centred = x - level.alpha * means[condition["label"].value]
        gain = level.alpha * variance / (level.alpha**2 * variance + level.sigma**2)
        return means[condition["label"].value] + gain * centred

    (nll,) = measure_model(
        [Likelihood(steps=60)], told, Cosine(), dataset, conditioners={"label": Label(dataset.classes)}, batch_size=40
    )
    held_out = dataset.load("test")
    squares = (held_out.x - means[held_out.labels]).square().sum(1) / dataset.std**2
    assert nll.value == pytest.approx(float((squares / 2).mean()) + math.log(2 * math.pi * dataset.std**2), abs=1e-2)


def test_nll_is_that_of_a_fixed_choice_and_says_when_it_is_not_finite() -> None:
    dataset = RingOfGaussians(size=100)
    flat = GaussianMixture.of([1.0], [[0.0, 0.0]], [1.0])
    metrics: list[ModelMetric] = [Likelihood(examples=10, steps=2)]
    (one,), (other,) = (
        measure_model(metrics, flat, Cosine(), dataset, conditioners={}, batch_size=size) for size in (3, 100)
    )
    assert one.value == pytest.approx(other.value, rel=1e-6)
    assert one.examples == 10
    (broken,) = measure_model(
        metrics, lambda x, level, condition=None: x / 0, Cosine(), dataset, conditioners={}, batch_size=10
    )
    assert (broken.value, broken.reason) == (None, "10 of 10 values are not finite")
    assert broken.examples == 10


def config(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(Path(__file__).parent.parent / "conf"), version_base="1.3"):
        return compose("config", [*TINY, *overrides])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["metric=[likelihood]"], "choose a metric of samples too"),
        (["metric=[wasserstein,likelihood]", "diffuser=consistency"], "does not go with diffuser=Consistency"),
        (
            ["metric=[wasserstein,likelihood]", "diffuser=self_conditioned", "backbone.inputs=2"],
            "does not go with diffuser=SelfConditioned",
        ),
        (["metric=[wasserstein,likelihood]", "evaluation.metrics.likelihood.examples=7"], "examples=7 must be"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_has_no_likelihood_is_refused_before_any_training(overrides: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        stages.build(config(*overrides))


def test_images_have_no_likelihood_here() -> None:
    with (
        initialize_config_dir(str(Path(__file__).parent.parent / "conf"), version_base="1.3"),
        pytest.raises(ValueError, match=r"likelihood is for points, not for dataset=digits of shape \(1, 8, 8\)"),
    ):
        stages.build(compose("config", ["metric=[frechet,likelihood]"]))


def test_a_result_has_all_that_is_asked_of_points(tmp_path: Path) -> None:
    cfg = config(
        f"paths.runs={tmp_path}",
        "training.steps=20",
        "trainer.progress=false",
        "metric=[wasserstein,likelihood]",
        "evaluation.metrics.likelihood.steps=5",
        "evaluation.metrics.likelihood.examples=40",
    )
    done = stages.complete(cfg, Run.of(cfg), [])
    assert done is not None
    result = done.flat()
    assert result["metric"] == make_evaluation(config(), make(config(), "dataset")).main == "w2_points"
    assert result["nll_low"] < result["nll"] < result["nll_high"]
    assert result["nll_examples"] == 40
    assert result["w2_points_low"] < result["w2_points"] < result["w2_points_high"]
