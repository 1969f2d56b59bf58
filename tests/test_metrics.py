"""Every metric is what torch-fidelity, torchmetrics and a plain loop in float64 make of its paper; always finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import pytest
import scipy.linalg
import torch
import torch_fidelity
from scipy.spatial.distance import cdist
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from diffsweep.data.digits import Digits
from diffsweep.data.fashion_mnist import FashionMNIST
from diffsweep.evaluation.accuracy import Accuracy
from diffsweep.evaluation.classifier import classifier
from diffsweep.evaluation.classwise import Classwise
from diffsweep.evaluation.evaluate import Evaluation
from diffsweep.evaluation.extractor import Extractor
from diffsweep.evaluation.features import Features
from diffsweep.evaluation.frechet import Frechet
from diffsweep.evaluation.inception import OUTPUTS, Inception
from diffsweep.evaluation.infinity import Infinity
from diffsweep.evaluation.interval import Estimate
from diffsweep.evaluation.kernel import KernelDistance
from diffsweep.evaluation.metric import Metric
from diffsweep.evaluation.neighbours import Neighbours
from diffsweep.evaluation.score import Score
from fixed_reference import Fixed, noisy
from prerequisites import need_fashion_mnist

ALL: list[Metric] = [Frechet(), KernelDistance(), Neighbours(), Score(), Accuracy(), Classwise(), Infinity()]


def look(extractor: Extractor, x: Tensor, labels: Tensor | None = None) -> Features:
    return Features.collect(extractor.batches(x, 300), labels, extractor.outputs)


def numbers(metric: Metric, drawn: Features, real: Fixed, block: int | None = None) -> dict[str, float]:
    return dict(metric.prepare(drawn, real)(block))


def random_features(n: int, d: int, seed: int, classes: int = 5, shift: float = 0.0) -> Features:
    draw = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=torch.Generator().manual_seed(99)) / d**0.5
    labels = torch.arange(n) % classes
    x = torch.randn(n, d, generator=draw) @ mixing + shift + labels[:, None] * 0.3
    logits = 2 * torch.randn(n, classes, generator=draw) + 6 * nn.functional.one_hot(labels, classes)
    return Features({"features": x, "logits": logits}, labels)


# --- against other people's libraries, from pictures to numbers -------------------------------------------------------

PICTURES = 20


class Remembering(nn.Module):
    """An output of batches that were looked at before: torchmetrics would look at them again for each metric."""

    num_features = 2048

    def __init__(self, seen: dict[bytes, Tensor]) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, x: Tensor) -> Tensor:
        return self.seen[x.numpy().tobytes()]


class Pictures(torch.utils.data.Dataset[Tensor]):
    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Tensor:
        return self.x[index]


@dataclass(frozen=True)
class Seen:
    """Pictures, the features of each, and what torch-fidelity says of them, whose network has the same weights."""

    x: Tensor
    y: Tensor
    drawn: Features
    real: Fixed
    fidelity: dict[str, float]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    torch.manual_seed(0)
    module = "torch_fidelity.feature_extractor_inceptionv3"
    with patch.object(FeatureExtractorInceptionV3, "load_state_dict"), patch(f"{module}.load_state_dict_from_url"):
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    nn.init.normal_(network.fc.weight, std=1)
    state = network.state_dict()
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(state, path)

    coarse = torch.rand(2, PICTURES, 3, 5, 5) ** torch.tensor([1.0, 1.5]).view(2, 1, 1, 1, 1)
    x, y = ((255 * nn.functional.interpolate(part, (40, 32), mode="bilinear")).to(torch.uint8) for part in coarse)
    ours = Extractor(Inception(state), "inception", 2048, "random", OUTPUTS)
    fidelity = torch_fidelity.calculate_metrics(
        input1=Pictures(x),
        input2=Pictures(y),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(path),
        fid=True,
        kid=True,
        isc=True,
        prc=True,
        kid_subsets=1,
        kid_subset_size=PICTURES,
        batch_size=16,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    return Seen(x, y, look(ours, x), Fixed(look(ours, y)), fidelity)


@pytest.mark.parametrize(
    ("metric", "short", "key"),
    [
        (Frechet(), "fd", "frechet_inception_distance"),
        (KernelDistance(), "kd", "kernel_inception_distance_mean"),
        (Score(), "score", "inception_score_mean"),
        (Neighbours(), "precision", "precision"),
        (Neighbours(), "recall", "recall"),
    ],
)
def test_the_same_pictures_have_the_same_number_in_torch_fidelity(
    seen: Seen, metric: Metric, short: str, key: str
) -> None:
    assert numbers(metric, seen.drawn, seen.real)[short] == pytest.approx(seen.fidelity[key], rel=1e-3)


def test_the_pictures_are_such_that_no_number_is_trivial(seen: Seen) -> None:
    assert seen.fidelity["frechet_inception_distance"] > 0.1
    assert seen.fidelity["kernel_inception_distance_mean"] > 0.001
    assert seen.fidelity["inception_score_mean"] > 1.05
    assert 0 < seen.fidelity["precision"] < 1
    assert 0 < seen.fidelity["recall"] < 1


def test_the_same_pictures_have_the_same_number_in_torchmetrics(seen: Seen) -> None:
    def network(output: str) -> Remembering:
        both = ((seen.x, seen.drawn), (seen.y, seen.real.features))
        return Remembering({x.numpy().tobytes(): features[output] for x, features in both})

    fid = FrechetInceptionDistance(network("features"))
    kid = KernelInceptionDistance(network("features"), subsets=1, subset_size=PICTURES)
    for metric in (fid, kid):
        metric.update(seen.y, real=True)
        metric.update(seen.x, real=False)
    score = InceptionScore(network("logits"), splits=1)
    score.update(seen.x)
    ours = {short: numbers(metric, seen.drawn, seen.real)[short] for metric in ALL[:2] for short in (metric.short,)}
    assert ours["fd"] == pytest.approx(fid.compute().item(), rel=1e-3)
    assert ours["kd"] == pytest.approx(kid.compute()[0].item(), rel=1e-3)
    assert numbers(Score(1), seen.drawn, seen.real)["score"] == pytest.approx(score.compute()[0].item(), rel=1e-3)


# --- against float64 computations without any tricks ------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> tuple[Features, Fixed]:
    """Damaged digits, and real ones."""
    extractor, train, test = classifier("digits"), Digits().load("train"), Digits().load("test")
    return look(extractor, noisy(test.x[:300], 60), test.labels[:300]), Fixed(look(extractor, train.x, train.labels))


def textbook_kernel(x: np.ndarray, y: np.ndarray) -> float:
    def mean(a: np.ndarray, b: np.ndarray, *, same: bool) -> float:
        values = (a @ b.T / a.shape[1] + 1) ** 3
        return values[~np.eye(len(a), dtype=bool)].mean() if same else values.mean()

    return mean(x, x, same=True) + mean(y, y, same=True) - 2 * mean(x, y, same=False)


def textbook_neighbours(x: np.ndarray, y: np.ndarray, k: int = 3, k_density: int = 5) -> dict[str, float]:
    def radii(a: np.ndarray, k: int) -> np.ndarray:
        return np.array([np.sort(np.delete(row, i))[k - 1] for i, row in enumerate(cdist(a, a))])

    between, of_x, of_y, dense = cdist(x, y), radii(x, k), radii(y, k), radii(y, k_density)
    found = {
        "precision": np.mean([any(between[i] <= of_y) for i in range(len(x))]),
        "recall": np.mean([any(between[:, j] <= of_x) for j in range(len(y))]),
        "density": np.mean([sum(between[i] <= dense) / k_density for i in range(len(x))]),
        "coverage": np.mean([any(between[:, j] <= dense[j]) for j in range(len(y))]),
    }
    return {name: float(value) for name, value in found.items()}


def textbook_frechet(x: np.ndarray, y: np.ndarray) -> float:
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.sqrt(np.maximum(np.real(scipy.linalg.eigvals(a @ b)), 0)).sum()
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * root)


def chosen(real: Fixed, n: int) -> Fixed:
    """The real samples that neighbours are counted among."""
    shuffled = torch.randperm(len(real.features), generator=torch.Generator().manual_seed(0))
    return Fixed(real.features.take(shuffled[:n]))


def array(features: Features) -> np.ndarray:
    return features["features"].double().numpy()


def test_kernel_and_neighbours_are_those_of_a_plain_computation(digits: tuple[Features, Fixed]) -> None:
    drawn, real = digits
    x, y = array(drawn), array(real.features)
    assert numbers(KernelDistance(), drawn, real)["kd"] == pytest.approx(textbook_kernel(x, y), rel=1e-6)
    theirs = textbook_neighbours(x, array(chosen(real, 300).features))
    assert numbers(Neighbours(), drawn, real) == pytest.approx(theirs, rel=1e-6)
    assert all(0.1 < value < 0.95 for value in theirs.values())


def test_kernel_and_neighbours_are_those_of_torch_fidelity_on_real_features(
    digits: tuple[Features, Fixed],
) -> None:
    drawn, real = digits[0], chosen(digits[1], 300)
    x, y = drawn["features"].double(), real.features["features"].double()
    kid = kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=300, verbose=False)
    ours = numbers(KernelDistance(), drawn, real)["kd"]
    assert ours == pytest.approx(kid["kernel_inception_distance_mean"], rel=1e-6)
    kid = kid_features_to_metric(x, y, kid_subsets=100, kid_subset_size=100, verbose=False)
    assert abs(ours - kid["kernel_inception_distance_mean"]) < 4 * kid["kernel_inception_distance_std"] / 100**0.5
    for k in (1, 3, 10):
        theirs = prc_features_to_metric(x, y, prc_neighborhood=k, verbose=False)
        found = numbers(Neighbours(k), drawn, real)
        assert {key: found[key] for key in ("precision", "recall")} == pytest.approx(
            {key: theirs[key] for key in ("precision", "recall")}, rel=1e-6
        )


def test_it_does_not_matter_how_many_pairs_are_in_memory(
    digits: tuple[Features, Fixed], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = [numbers(metric, *digits) for metric in (KernelDistance(), Neighbours())]
    monkeypatch.setattr("diffsweep.evaluation.neighbours._AT_ONCE", 7 * 300)
    monkeypatch.setattr("diffsweep.evaluation.pairs._AT_ONCE", 7 * 300)
    for whole, metric in zip(at_once, (KernelDistance(), Neighbours()), strict=True):
        assert numbers(metric, *digits) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("splits", [1, 7, 10])
def test_score_is_that_of_torch_fidelity(digits: tuple[Features, Fixed], splits: int) -> None:
    theirs = isc_features_to_metric(digits[0]["logits"], splits)["inception_score_mean"]
    assert numbers(Score(splits), *digits)["score"] == pytest.approx(theirs, rel=1e-9)


def test_numbers_by_class_are_those_of_each_class_alone(digits: tuple[Features, Fixed]) -> None:
    drawn, real = digits
    assert drawn.labels is not None
    assert real.features.labels is not None
    right = (drawn["logits"].argmax(dim=1) == drawn.labels).double().mean()
    assert numbers(Accuracy(), drawn, real) == {"accuracy": pytest.approx(float(right))}
    of_class = [
        textbook_frechet(array(drawn.take(drawn.labels == c)), array(real.features.take(real.features.labels == c)))
        for c in range(10)
    ]
    expected = {f"fd.class_{c}": value for c, value in enumerate(of_class)}
    expected |= {"fd.within": sum(of_class) / 10, "fd.worst": max(of_class)}
    assert numbers(Classwise(), drawn, real) == pytest.approx(expected, rel=1e-6)
    assert set(numbers(Classwise(listed=9), drawn, real)) == {"fd.within", "fd.worst"}


# --- without a block --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [12, 57, 200])
@pytest.mark.parametrize(
    "metric", [Frechet(), KernelDistance(), Neighbours(), Score(1), Accuracy(), Classwise()], ids=lambda one: one.short
)
def test_a_number_without_a_block_is_that_of_the_other_samples(metric: Metric, n: int) -> None:
    """With as many real samples as are left, so that all are looked at."""
    drawn = random_features(n, 6, seed=1, classes=2, shift=0.5)
    real = Fixed(random_features(n - max(map(len, drawn.blocks)), 6, seed=2, classes=2))
    prepared = metric.prepare(drawn, real)
    whole = prepared(None)
    assert whole
    for block in range(len(drawn.blocks)):
        alone = numbers(metric, drawn.without(block), real)
        assert prepared(block).keys() == whole.keys()
        assert alone == pytest.approx(dict(prepared(block)), rel=1e-6, abs=1e-9)


def spread(n: int, d: int, seed: int, decades: float) -> Tensor:
    """Float64 (n, d), whose covariance has eigenvalues over so many decades, as those of networks' features have."""
    scale = torch.logspace(0, -decades / 2, d, dtype=torch.float64)
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


@pytest.mark.parametrize("decades", [0, 4, 10])
@pytest.mark.parametrize(("n", "d"), [(9, 40), (60, 60), (64, 60), (150, 60), (300, 120)])
def test_frechet_without_a_block_is_exact_however_near_to_singular(n: int, d: int, decades: float) -> None:
    """Few samples are taken out without another decomposition. Some are copies, which makes no difference."""
    x = spread(n, d, 1, decades)
    x[n // 2] = x[0]
    y = spread(5 * d, d, 2, decades) + 0.1 * spread(1, d, 3, decades)
    drawn, real = Features({"features": x}), Fixed(Features({"features": y}))
    prepared = Frechet().prepare(drawn, real)
    centred = y - y.mean(dim=0)
    for block in (None, 0, len(drawn.blocks) - 1):
        left = drawn.without(block)["features"]
        about = left - left.mean(dim=0)
        # The roots are singular values of the inner products of both sets, so that none is squared.
        cross = np.linalg.svd((about @ centred.T).numpy(), compute_uv=False).sum()
        trace = about.square().sum() / (len(left) - 1) + centred.square().sum() / (len(y) - 1)
        gap = (left.mean(dim=0) - y.mean(dim=0)).square().sum()
        exact = float(gap + trace) - 2 * cross / math.sqrt((len(left) - 1) * (len(y) - 1))
        assert prepared(block)["fd"] == pytest.approx(exact, rel=1e-6, abs=1e-9 * float(trace))


def test_at_infinity_a_block_is_left_out_of_every_part() -> None:
    drawn, real = random_features(130, 3, seed=1, shift=0.3), Fixed(random_features(300, 3, seed=2))
    drawn, x = Features(drawn.outputs), array(drawn)
    order = torch.randperm(130, generator=torch.Generator().manual_seed(0)).numpy()
    prepared = Infinity(parts=3).prepare(drawn, real)
    for block in (None, 4):
        gone = [] if block is None else drawn.blocks[block].tolist()
        line = []
        for parts in (1, 2, 3):
            left = [np.setdiff1d(order[first::parts], gone) for first in range(parts)]
            distances = [textbook_frechet(x[part], array(real.features)) for part in left]
            line.append((np.mean([1 / len(part) for part in left]), np.mean(distances)))
        start, slope = np.polynomial.polynomial.polyfit([one for one, _ in line], [other for _, other in line], 1)
        assert slope > 0
        assert prepared(block) == {"fd.infinity": pytest.approx(start, rel=1e-6)}


@pytest.mark.parametrize(("metric", "n"), [(Score(), 200), (Infinity(parts=2), 200)], ids=["score", "infinity"])
def test_the_jackknife_of_what_is_divided_at_random_tells_the_scatter(metric: Metric, n: int) -> None:
    real = Fixed(random_features(2000, 8, seed=1))
    found = []
    for seed in range(2, 32):
        prepared = metric.prepare(random_features(n, 8, seed=seed, shift=0.3), real)
        without = [prepared(block)[metric.short] for block in range(20)]
        found.append(Estimate(prepared(None)[metric.short], without))
    scatter = float(np.std([estimate.value for estimate in found], ddof=1))
    told = float(np.sqrt(np.mean([estimate.error**2 for estimate in found])))
    assert 0.7 * scatter < told < 1.6 * scatter


# --- real pictures ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clothes:
    """FashionMNIST in our features: a reference, real samples that are not in it, and damaged ones by strength."""

    real: Fixed
    test: Features
    damaged: dict[int, Features]


@pytest.fixture(scope="module")
def clothes() -> Clothes:
    need_fashion_mnist()
    extractor, train, test = classifier("fashion_mnist"), FashionMNIST().load("train"), FashionMNIST().load("test")
    x, labels = test.x[:1200], test.labels[:1200]
    damaged = {std: look(extractor, noisy(x[:400], std), labels[:400]) for std in (25, 80)}
    return Clothes(Fixed(look(extractor, train.x[:1500], train.labels[:1500])), look(extractor, x, labels), damaged)


def test_every_number_gets_worse_with_noise(clothes: Clothes) -> None:
    sets = [clothes.test.take(torch.arange(400)), *clothes.damaged.values()]
    found = [
        {name: value for metric in ALL for name, value in numbers(metric, one, clothes.real).items()} for one in sets
    ]
    for name in ("recall", "density", "coverage", "accuracy", "score"):
        assert found[0][name] > found[1][name] > found[2][name], name
    # Very noisy pictures of whatever kind look alike to the classifier, and lie between the classes rather than apart.
    assert found[0]["precision"] > max(one["precision"] for one in found[1:])
    for name in ("fd", "fd.infinity", "kd", "fd.within", "fd.worst"):
        assert found[0][name] < found[1][name] < found[2][name], name
    assert abs(found[0]["kd"]) < 0.05 * found[1]["kd"]


def test_variety_gets_worse_with_every_class_that_is_missing_and_quality_does_not(clothes: Clothes) -> None:
    assert clothes.test.labels is not None
    sets = [clothes.test.take(clothes.test.labels >= least).take(torch.arange(200)) for least in (0, 3, 6, 8)]
    found = [
        {**numbers(Neighbours(), one, clothes.real), **numbers(KernelDistance(), one, clothes.real)} for one in sets
    ]
    for name in ("recall", "coverage"):
        values = [one[name] for one in found]
        assert values == sorted(values, reverse=True), name
        assert values[-1] < 0.5 * values[0]
    assert [one["kd"] for one in found] == sorted(one["kd"] for one in found)
    assert found[-1]["precision"] > 0.9 * found[0]["precision"]
    # Classes that were not drawn have no distance, and the others' mean is not that of all.
    assert set(numbers(Classwise(), sets[-1], clothes.real)) == {"fd.class_8", "fd.class_9"}


def test_at_infinity_few_samples_say_what_many_say(clothes: Clothes) -> None:
    """The plain distance of 300 is three times that of 1200, both being of real samples to real ones."""
    for labelled in (False, True):
        plain, infinite = [], []
        for n in (300, 1200):
            sets = [clothes.test.take(torch.arange(first, first + n)) for first in range(0, 1200, n)]
            if not labelled:
                sets = [Features(one.outputs) for one in sets]
            plain.append(np.mean([numbers(Frechet(), one, clothes.real)["fd"] for one in sets]))
            infinite.append(np.mean([numbers(Infinity(), one, clothes.real)["fd.infinity"] for one in sets]))
        assert plain[0] > 2 * plain[1]
        assert abs(infinite[0] - infinite[1]) < 0.2 * (plain[0] - plain[1])


def test_at_infinity_classes_that_were_dealt_out_evenly_stay_so_in_every_part(clothes: Clothes) -> None:
    """Random parts would have random shares of the classes, which the samples have not: the line would be too steep."""
    test = clothes.test
    assert test.labels is not None
    members = [torch.nonzero(test.labels == c).flatten()[:90] for c in range(10)]
    sets = [test.take(torch.stack([one[first : first + 30] for one in members], 1).flatten()) for first in (0, 30, 60)]
    many = numbers(Infinity(), test, clothes.real)["fd.infinity"]
    dealt = np.mean([numbers(Infinity(), one, clothes.real)["fd.infinity"] for one in sets])
    blind = np.mean([numbers(Infinity(), Features(one.outputs), clothes.real)["fd.infinity"] for one in sets])
    assert blind < dealt
    assert abs(dealt - many) < abs(blind - many)


def test_accuracy_needs_a_classifier_of_the_same_labels(clothes: Clothes) -> None:
    test, real = clothes.test, clothes.real.features
    assert real.labels is not None
    assert numbers(Accuracy(), test, clothes.real)["accuracy"] > 0.85
    assert numbers(Accuracy(), Features(test.outputs), clothes.real) == {}
    assert numbers(Accuracy(), test, Fixed(Features(real.outputs))) == {}
    other_names = Fixed(Features(real.outputs, (real.labels + 3) % 10))
    assert numbers(Accuracy(), test, other_names) == {}
    draw = torch.Generator().manual_seed(0)
    imagenet = [
        Features({**one.outputs, "logits": torch.randn(len(one), 1008, generator=draw)}, one.labels)
        for one in (test, real)
    ]
    assert numbers(Accuracy(), imagenet[0], Fixed(imagenet[1])) == {}


# --- whatever is drawn ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [*range(2, 11), 40])
@pytest.mark.parametrize("kind", ["random", "all equal", "real ones", "two points", "one class", "huge", "no labels"])
def test_numbers_are_finite_or_left_out(kind: str, n: int) -> None:
    """And the same ones without every block, in more dimensions than samples."""
    real = Fixed(random_features(40, 50, seed=0))
    drawn = random_features(n, 50, seed=1)
    outputs, labels = dict(drawn.outputs), drawn.labels
    if kind == "all equal":
        outputs = {name: output[:1].expand(n, -1) for name, output in outputs.items()}
    elif kind == "real ones":
        outputs = {name: output[:n] for name, output in real.features.outputs.items()}
    elif kind == "two points":
        real = Fixed(Features({name: torch.ones_like(output) for name, output in real.features.outputs.items()}))
        outputs = {name: 3.3 * torch.ones_like(output) for name, output in outputs.items()}
    elif kind == "one class":
        labels = torch.zeros(n, dtype=torch.long)
        real = Fixed(Features(real.features.outputs, torch.zeros(40, dtype=torch.long)))
    elif kind == "huge":
        outputs = {name: 1e6 * output for name, output in outputs.items()}
    elif kind == "no labels":
        labels = None
    drawn = Features(outputs, labels)
    for metric in ALL:
        prepared = metric.prepare(drawn, real)
        found = prepared(None)
        assert all(map(math.isfinite, found.values())), found
        for block in range(len(drawn.blocks) if n >= 8 else 0):
            without = prepared(block)
            assert without.keys() == found.keys()
            assert all(map(math.isfinite, without.values())), without
    extractor = Extractor(nn.Identity(), "inception", 50, "", ("features", "logits"))
    measured = Evaluation(extractor, ALL).measure(drawn, real)
    assert "fid" in measured
    assert ("precision" in measured) == (n >= 8)
    assert ("accuracy" in measured) == (kind in {"random", "all equal", "real ones", "huge"})


def test_copies_lie_in_each_others_balls_and_far_points_in_none() -> None:
    everything = {"precision": 1.0, "recall": 1.0, "density": 1.0, "coverage": 1.0}
    real = random_features(200, 64, seed=0, shift=5)
    copies = Features({"features": real["features"].flip(0)})
    found = numbers(Neighbours(), copies, Fixed(real))
    # Each lies in its own ball, and on the rim of as many others as there are neighbours, on average.
    assert found == pytest.approx(everything | {"density": 6 / 5})
    constant = Features({"features": torch.full((30, 7), 0.1)})
    assert numbers(Neighbours(), constant, Fixed(constant)) == everything | {"density": 30 / 5}
    far = Features({"features": torch.full((30, 7), 0.1001)})
    assert set(numbers(Neighbours(), far, Fixed(constant)).values()) == {0.0}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: KernelDistance(0), "degree=0 must be a whole number, 1 or more"),
        (lambda: Neighbours(0), "k=0 must be a whole number, 1 or more"),
        (lambda: Neighbours(k_density=-1), "k_density=-1 must be a whole number, 1 or more"),
        (lambda: Score(0), "splits=0 must be"),
        (lambda: Infinity(1), "parts=1 must be a whole number, 2 or more"),
    ],
)
def test_impossible_parameters_are_refused_in_one_line(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)
