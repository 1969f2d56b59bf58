"""A distance is the textbook's, grows with every damage to real pictures, and never rests on a stale reference."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import hydra.utils
import numpy as np
import pytest
import scipy.linalg
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor, nn
from torch_fidelity import metric_fid
from torchmetrics.image.fid import FrechetInceptionDistance

from diffsweep.data.digits import Digits
from diffsweep.data.examples import Examples
from diffsweep.data.fashion_mnist import FashionMNIST
from diffsweep.data.mixture import RingOfGaussians
from diffsweep.evaluation import train_classifier
from diffsweep.evaluation.classifier import WEIGHTS, Classifier, classifier
from diffsweep.evaluation.evaluate import Evaluation
from diffsweep.evaluation.extractor import Extractor, sha256
from diffsweep.evaluation.features import BLOCKS, Features
from diffsweep.evaluation.frechet import Frechet, frechet_distance
from diffsweep.evaluation.identity import identity
from diffsweep.evaluation.moments import Moments
from diffsweep.evaluation.pictures import grid, scatter
from diffsweep.evaluation.reference import Library, Reference
from diffsweep.grid_geometry import CHUNK
from diffsweep.scoring.estimate import measure_of
from fixed_reference import Fixed, noisy
from prerequisites import need_fashion_mnist

CONF = Path(__file__).parents[1] / "conf" / "extractor"


def accumulate(batches: Iterable[Tensor]) -> Moments:
    return reduce(Moments.merge, map(Moments.of, batches))


def normal(n: int, d: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=draw, dtype=torch.float64) / d**0.5
    return torch.randn(n, d, generator=draw, dtype=torch.float64) @ mixing * scale + shift


# --- the distance ---------------------------------------------------------------------------------------------------


def textbook(a: Moments, b: Moments) -> float:
    root = scipy.linalg.sqrtm(a.cov.numpy() @ b.cov.numpy())
    return float((a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * np.trace(np.real(root)))


def test_distance_of_diagonal_gaussians_is_the_closed_form() -> None:
    one, two = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([4.0, 1.0, 0.0]).double()
    a = Moments(torch.zeros(3).double(), torch.diag(one), 10)
    b = Moments(torch.tensor([1.0, 2.0, 3.0]).double(), torch.diag(two), 10)
    assert frechet_distance(a, b) == pytest.approx(14 + (one.sqrt() - two.sqrt()).square().sum().item(), rel=1e-12)


@pytest.mark.parametrize("d", [2, 64, 192])
def test_distance_agrees_with_scipy_torchmetrics_and_torch_fidelity(d: int) -> None:
    x, y = normal(400, d, seed=1).float(), normal(300, d, seed=2, scale=1.3, shift=0.2).float()
    a, b = accumulate(x.split(64)), accumulate(y.split(50))
    ours = frechet_distance(a, b)
    assert ours == pytest.approx(textbook(a, b), rel=1e-6)

    class Features(nn.Module):
        num_features = d

        def forward(self, batch: Tensor) -> Tensor:
            return batch

    metric = FrechetInceptionDistance(Features(), normalize=True)
    metric.update(x, real=True)
    metric.update(y, real=False)
    assert ours == pytest.approx(metric.compute().item(), rel=1e-3)

    statistics = [metric_fid.fid_features_to_statistics(features) for features in (x, y)]
    theirs = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)[metric_fid.KEY_METRIC_FID]
    assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (20, 500), (2, 2), (500, 20)])
def test_rank_deficient_covariances_give_a_finite_symmetric_distance(n: int, m: int) -> None:
    a, b = Moments.of(normal(n, 128, seed=3)), Moments.of(normal(m, 128, seed=4))
    there, back = frechet_distance(a, b), frechet_distance(b, a)
    assert np.isfinite(there)
    assert there > 0.1
    assert there == pytest.approx(back, rel=1e-4)
    assert 0 <= frechet_distance(a, a) < 1e-4
    constant = Moments.of(torch.ones(5, 128))
    assert frechet_distance(constant, constant) == 0


def test_distance_refuses_what_cannot_be_compared() -> None:
    a = Moments.of(normal(9, 3, seed=0))
    with pytest.raises(ValueError, match="3 features with 4"):
        frechet_distance(a, Moments.of(normal(9, 4, seed=0)))
    with pytest.raises(ValueError, match="at least 2 samples on each side, not 9 and 1"):
        frechet_distance(a, Moments.of(normal(1, 3, seed=0)))


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_streamed_moments_are_those_of_the_whole_even_far_from_zero(batch: int) -> None:
    x = normal(300, 5, seed=5, shift=1e6)
    moments = accumulate(x.split(batch))
    assert moments.n == 300
    assert moments.mean.numpy() == pytest.approx(x.numpy().mean(axis=0), rel=1e-14)
    assert moments.cov.numpy() == pytest.approx(np.cov(x.numpy(), rowvar=False), rel=1e-7, abs=1e-8)


def test_moments_of_two_devices_merge_to_those_of_one() -> None:
    x = normal(101, 4, seed=6)
    parts = [accumulate(part.split(8)) for part in x.split([30, 1, 70])]
    whole, merged = Moments.of(x), parts[2].merge(parts[0].merge(parts[1]))
    assert merged.n == 101
    assert torch.allclose(merged.mean, whole.mean, rtol=1e-13, atol=1e-14)
    assert torch.allclose(merged.cov, whole.cov, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("n", "d"), [(300, 16), (41, 40), (40, 40), (30, 64), (9, 64)])
def test_the_distance_without_a_block_is_that_of_the_other_samples(n: int, d: int) -> None:
    """Where samples are fewer than dimensions another matrix is decomposed: the number is the same."""
    drawn = Features({"features": normal(n, d, seed=9, shift=30).float()})
    real = Fixed(Features({"features": normal(500, d, seed=10, shift=30).float()}))
    numbers = Frechet().prepare(drawn, real)
    for block in (None, 0, len(drawn.blocks) - 1):
        expected = frechet_distance(Moments.of(drawn.without(block)["features"]), real.moments())
        # Square roots of eigenvalues that are nearly zero lose half of the digits.
        assert numbers(block) == {"fd": pytest.approx(expected, rel=1e-6, abs=1e-6)}


# --- what is measured -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 39, 40, 41, 500, 1009])
def test_blocks_divide_the_samples_in_their_order(n: int) -> None:
    drawn = Features({"features": torch.arange(n).float()[:, None]}, labels=torch.arange(n) % 10)
    assert torch.cat(drawn.blocks).tolist() == list(range(n))
    assert len(drawn.blocks) == max(2, min(BLOCKS, n // 2))
    assert max(map(len, drawn.blocks)) - min(map(len, drawn.blocks)) <= 1
    left = drawn.without(1)
    assert left.labels is not None
    gone = drawn.blocks[1].tolist()
    assert left["features"].flatten().tolist() == [i for i in range(n) if i not in gone]
    assert left.labels.tolist() == [i % 10 for i in range(n) if i not in gone]
    assert drawn.without(None) is drawn


@pytest.mark.parametrize("n", [7, 8, 100])
def test_every_number_comes_with_its_interval_and_what_differences_are_made_of(n: int) -> None:
    evaluation = Evaluation(identity(2), [Frechet()])
    assert (evaluation.main, evaluation.outputs) == ("fd_points", ["features"])
    drawn = Features({"features": normal(n, 2, seed=1).float()})
    real = Fixed(Features({"features": normal(500, 2, seed=2).float()}))
    ((name, estimate),) = evaluation.measure(drawn, real).items()
    record: dict[str, Any] = measure_of(name, estimate, 0.5).flat()
    assert record["fd_points"] == evaluation.values(drawn, real)["fd_points"]
    assert record["fd_points_floor"] == 0.5
    assert record["fd_points_by"] == "Frechet output=features"
    if n < 8:
        assert set(record) == {"fd_points", "fd_points_floor", "fd_points_by"}
        return
    assert record["fd_points_low"] < record["fd_points"] < record["fd_points_high"]
    without = [float(word) for word in str(record["fd_points_jackknife"]).split()]
    left = [Moments.of(drawn.without(block)["features"]) for block in range(len(drawn.blocks))]
    assert without == pytest.approx([frechet_distance(one, real.moments()) for one in left], rel=1e-6)


def test_broken_features_are_counted_and_refused() -> None:
    x = normal(50, 2, seed=7).float()
    x[4, 0], x[30, 1], x[30, 0] = torch.nan, torch.inf, torch.nan
    evaluation = Evaluation(identity(2), [Frechet()])
    real = Fixed(Features({"features": normal(50, 2, seed=2).float()}))
    with pytest.raises(ValueError, match="features of 2 of 50 samples are NaN or infinite"):
        evaluation.measure(Features({"features": x}), real)
    with pytest.raises(ValueError, match="at least 2 samples, not 1"):
        evaluation.measure(Features({"features": x[:1]}), real)
    with pytest.raises(ValueError, match="no samples"):
        Features.collect([], None, [])


def test_what_cannot_be_measured_is_refused_before_anything_is_drawn() -> None:
    with pytest.raises(ValueError, match="metric sfd needs spatial, which extractor points does not give"):
        Evaluation(identity(2), [Frechet("spatial")])
    with pytest.raises(ValueError, match="nothing to measure"):
        Evaluation(identity(2), [])
    with pytest.raises(ValueError, match="output=logits has no Frechet distance: choose one of features, spatial"):
        Frechet("logits")


def test_only_inceptions_numbers_have_the_names_that_papers_print() -> None:
    inception_, ours = (Extractor(nn.Identity(), space, 2, "x") for space in ("inception", "digits"))
    assert [inception_.called(name) for name in ("fd", "kd", "fd.infinity", "recall")] == [
        "fid",
        "kid",
        "fid_infinity",
        "recall",
    ]
    assert [ours.called(name) for name in ("fd", "kd", "fd.infinity", "recall")] == [
        "fd_digits",
        "kd_digits",
        "fd_digits_infinity",
        "recall_digits",
    ]


# --- extractors -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fashion() -> tuple[Extractor, Moments, Examples]:
    need_fashion_mnist()
    extractor = classifier("fashion_mnist")
    train = FashionMNIST().load("train").x[:6000]
    return extractor, moments(train, extractor), FashionMNIST().load("test")


def moments(x: Tensor, extractor: Extractor) -> Moments:
    return accumulate(batch["features"] for batch in extractor.batches(x, 500))


def distance(x: Tensor, extractor: Extractor, real: Moments) -> float:
    return frechet_distance(moments(x, extractor), real)


def test_fd_fashion_mnist_grows_with_noise(fashion: tuple[Extractor, Moments, Examples]) -> None:
    extractor, real, test = fashion
    found = [distance(noisy(test.x[:1000], std), extractor, real) for std in (0, 2, 5, 10, 20, 40, 80)]
    assert found == sorted(found)
    assert found[3] > 1.05 * found[0]
    assert found[-1] > 5 * found[0]


def test_fd_fashion_mnist_grows_with_every_class_that_is_missing(fashion: tuple[Extractor, Moments, Examples]) -> None:
    extractor, real, test = fashion
    found = [distance(test.x[test.labels >= least][:1000], extractor, real) for least in (0, 1, 2, 4, 6, 8)]
    assert found == sorted(found)
    assert found[1] > 1.2 * found[0]


def test_real_against_real_is_the_smallest_distance(
    fashion: tuple[Extractor, Moments, Examples], tmp_path: Path
) -> None:
    extractor, real, test = fashion
    library = Library(extractor, [], tmp_path, 500)

    def floor(n: int, seed: int) -> float:
        return frechet_distance(Moments.of(library.held_out(test, n, seed)["features"]), real)

    at_500, at_2000 = floor(500, 0), floor(2000, 0)
    assert at_2000 < at_500 < 0.1 * distance(noisy(test.x[:500], 80), extractor, real)
    assert floor(500, 0) == at_500
    assert floor(500, 1) == pytest.approx(at_500, rel=0.3)


def test_features_are_graded_and_of_full_rank(fashion: tuple[Extractor, Moments, Examples]) -> None:
    extractor, real, test = fashion
    features = extractor(test.x[:500])["features"]
    assert features.shape == (500, extractor.dimension)
    assert len(features[:, 0].unique()) > 450
    spread = torch.linalg.eigvalsh(real.cov)
    assert spread[0] > 1e-5 * spread[-1]


def test_features_do_not_depend_on_batch_size_or_autocast(fashion: tuple[Extractor, Moments, Examples]) -> None:
    extractor, _, test = fashion
    whole = extractor(test.x[:64])
    pieces = Features.collect(extractor.batches(test.x[:64], 7), None, extractor.outputs)
    assert extractor.outputs == ("features", "logits")
    with torch.autocast("cpu", torch.bfloat16):
        again = extractor(test.x[:64])
    for name in extractor.outputs:
        assert torch.allclose(pieces[name], whole[name], atol=1e-4)
        assert torch.equal(again[name], whole[name])


@pytest.mark.parametrize(("name", "least"), [("digits", 0.985), ("fashion_mnist", 0.925)])
def test_weights_are_those_of_their_card(name: str, least: float) -> None:
    path = WEIGHTS / f"{name}.safetensors"
    card = path.with_suffix(".md").read_text()
    assert path.stat().st_size < 500_000
    assert f"SHA-256: {sha256_of(path)}" in card
    stated = re.search(r"Test accuracy: ([\d.]+)%", card)
    assert stated
    assert float(stated[1]) / 100 >= least
    if name == "fashion_mnist":
        need_fashion_mnist()
    dataset = Digits() if name == "digits" else FashionMNIST()
    test = dataset.load("test")
    network = classifier(name).network
    assert isinstance(network, Classifier)
    assert train_classifier.accuracy(network, test.x, test.labels) == pytest.approx(float(stated[1]) / 100, abs=1e-3)


def sha256_of(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_training_command_is_reproducible_and_writes_weights_with_a_card(tmp_path: Path) -> None:
    for folder, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        arguments = ["--dataset", "digits", "--epochs", "1", "--seed", seed, "--out", str(tmp_path / folder)]
        train_classifier.main(arguments)
    one, same, other = (sha256_of(tmp_path / folder / "digits.safetensors") for folder in "abc")
    assert one == same != other
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["digits.md", "digits.safetensors"]
    assert "--dataset digits --seed 1 --epochs 1" in (tmp_path / "c" / "digits.md").read_text()


@pytest.mark.parametrize(
    ("name", "space", "dimension"),
    [("digits", "digits", 64), ("fashion_mnist", "fashion_mnist", 64), ("mixture", "points", 2)],
)
def test_yaml_gives_the_extractor(name: str, space: str, dimension: int) -> None:
    described = OmegaConf.load(CONF / f"{name}.yaml").evaluation.extractor
    extractor: Extractor = hydra.utils.instantiate(described).to("cpu")
    assert (extractor.space, extractor.dimension) == (space, dimension)
    assert extractor.digest == hydra.utils.instantiate(described).digest


def test_every_extractor_has_its_own_digest() -> None:
    all_of_them = [classifier("digits"), classifier("fashion_mnist"), identity(2), identity(3)]
    assert len({extractor.digest for extractor in all_of_them}) == 4


def test_points_are_their_own_features() -> None:
    points = torch.randn(9, 2)
    assert torch.equal(identity()(points)["features"], points)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: classifier("digits")(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)), r"images \(1, 8, 8\), not"),
        (lambda: identity(2)(torch.zeros(2, 3)), r"points takes float \(N, 2\), not torch.float32 \(2, 3\)"),
        (lambda: identity(0), "dimension=0 must be a whole number, 1 or more"),
        (lambda: identity(2).batches(torch.zeros(2, 2), 0), "batch_size=0 must be a whole number, 1 or more"),
        (lambda: classifier("mnist"), "'mnist': choose one of digits, fashion_mnist"),
    ],
)
def test_input_of_the_wrong_kind_is_refused_in_one_line(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)


# --- the reference --------------------------------------------------------------------------------------------------


class Counting(nn.Module):
    """Four means of an image, and how many images were asked for."""

    seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return x.float().flatten(1).unflatten(1, (4, -1)).mean(dim=2)


@dataclass
class Stage:
    """What a reference is computed from."""

    data: Examples
    network: Counting
    extractor: Extractor
    cache: Path

    def keeper(self, **changes: object) -> Library:
        return replace(Library(self.extractor, ["features"], self.cache, 7), **changes)  # pyright: ignore[reportArgumentType]

    def run(self, data: Examples | None = None, **changes: object) -> tuple[Reference, int]:
        """The reference, and how many images had to be looked at for it."""
        before = self.network.seen
        return self.keeper(**changes).reference(data or self.data), self.network.seen - before


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(30) % 3
    data = Examples(torch.randint(0, 256, (30, 1, 4, 4), dtype=torch.uint8, generator=draw), labels)
    network = Counting()
    return Stage(data, network, Extractor(network, "counting", 4, sha256("one")), tmp_path / "cache")


def same(a: Reference, b: Reference) -> bool:
    assert a.features.labels is not None
    assert b.features.labels is not None
    return (
        (a.n, a.digest) == (b.n, b.digest)
        and torch.equal(a.moments().mean, b.moments().mean)
        and torch.equal(a.moments().cov, b.moments().cov)
        and torch.equal(a.features["features"], b.features["features"])
        and torch.equal(a.features.labels, b.features.labels)
    )


def test_reference_is_computed_once_and_read_back_exactly(stage: Stage) -> None:
    first, cost = stage.run()
    again, nothing = stage.run()
    assert (cost, nothing) == (30, 0)
    assert (again.n, first.n) == (30, 30)
    assert same(first, again)
    features = stage.extractor(stage.data.x)["features"]
    assert torch.equal(first.features["features"], features)
    assert torch.allclose(first.moments().cov, Moments.of(features).cov)
    assert len(list(stage.cache.iterdir())) == 1


def test_of_very_many_real_samples_a_fixed_choice_is_kept_and_all_count(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffsweep.evaluation.reference.KEPT", 12)
    found, cost = stage.run()
    every = stage.extractor(stage.data.x)["features"]
    assert (cost, found.n, len(found.features)) == (30, 30, 12)
    assert torch.allclose(found.moments().mean, Moments.of(every).mean)
    numbers = [int((every == row).all(dim=1).nonzero()) for row in found.features["features"]]
    assert len(set(numbers)) == 12
    assert max(numbers) > 12
    assert found.features.labels is not None
    assert found.features.labels.tolist() == [number % 3 for number in numbers]


def test_held_out_samples_are_looked_at_once(stage: Stage) -> None:
    library = stage.keeper()
    first = library.held_out(stage.data, 20, seed=0)
    assert (len(first), stage.network.seen) == (20, 20)
    assert torch.equal(library.held_out(stage.data, 20, seed=0)["features"], first["features"])
    assert stage.network.seen == 20
    assert not torch.equal(library.held_out(stage.data, 20, seed=1)["features"], first["features"])
    assert len(library.held_out(stage.data, 10**6, seed=0)) == 30
    with pytest.raises(ValueError, match="at least 2 held-out examples, not 1 of 30"):
        library.held_out(stage.data, 1, seed=0)


def test_a_balanced_choice_has_as_many_of_every_label_as_samples_by_label_have(stage: Stage) -> None:
    uneven = Examples(stage.data.x, torch.tensor([0] * 20 + [1] * 7 + [2] * 3))
    found = stage.keeper().held_out(uneven, 9, seed=0, balanced=True)
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2] * 3
    every = stage.keeper().held_out(uneven, 99, seed=0, balanced=True)
    assert every.labels is not None
    assert every.labels.bincount().tolist() == [20, 7, 3]
    rows = {tuple(row) for row in every["features"].tolist()}
    assert len(rows) == 30
    plain = stage.keeper().held_out(uneven, 9, seed=0)
    assert plain.labels is not None
    assert plain.labels.tolist() != found.labels.tolist()


def test_other_data_or_other_weights_never_find_this_reference(stage: Stage) -> None:
    stage.run()
    changed = stage.data.x.clone()
    changed[0, 0, 0, 0] ^= 1
    assert stage.run(Examples(changed, stage.data.labels))[1] == 30
    assert stage.run(Examples(stage.data.x, stage.data.labels.flip(0)))[1] == 30
    assert stage.run(stage.data.take(torch.arange(29)))[1] == 29
    assert stage.run(extractor=replace(stage.extractor, digest=sha256("two")))[1] == 30
    assert len(list(stage.cache.iterdir())) == 5
    assert stage.run()[1] == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]),
        lambda whole: whole.replace(b'"n"', b'"m"'),
        lambda whole: b"not safetensors at all",
    ],
)
def test_damaged_cache_file_is_computed_again(stage: Stage, damage: Callable[[bytes], bytes]) -> None:
    first, _ = stage.run()
    (path,) = stage.cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert path.read_bytes() != whole
    repaired, cost = stage.run()
    assert cost == 30
    assert same(repaired, first)
    assert stage.run()[1] == 0
    assert list(stage.cache.iterdir()) == [path]


# --- pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 5, 100])
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32)])
def test_grid_shows_every_pixel_in_order(tmp_path: Path, count: int, channels: int, size: int) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=draw)
    grid(x, tmp_path / "new" / "grid.png")
    picture = np.asarray(Image.open(tmp_path / "new" / "grid.png")).reshape(*png_shape(tmp_path / "new" / "grid.png"))
    with Image.open(tmp_path / "new" / "grid.png") as opened:
        geometry = json.loads(opened.text[CHUNK])  # pyright: ignore[reportAttributeAccessIssue]
    columns = int(np.ceil(count**0.5))
    assert (geometry["count"], geometry["columns"], geometry["height"], geometry["width"]) == (
        count,
        columns,
        size,
        size,
    )
    assert (geometry["gap"], geometry["factor"]) == (1, picture.shape[1] // (columns * (size + 1) - 1))
    factor = picture.shape[1] // (columns * (size + 1) - 1)
    assert 500 <= picture.shape[1] <= 900
    for i in range(count):
        top, left = (i // columns) * (size + 1) * factor, (i % columns) * (size + 1) * factor
        cell = picture[top : top + size * factor : factor, left : left + size * factor : factor]
        assert np.array_equal(cell, x[i].permute(1, 2, 0).numpy())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["grid.png"]


def png_shape(path: Path) -> tuple[int, int, int]:
    with Image.open(path) as image:
        return image.height, image.width, len(image.getbands())


def test_points_become_a_scatter_plot(tmp_path: Path) -> None:
    scatter(RingOfGaussians(size=200).load("train").x, tmp_path / "points.png")
    height, width, _ = png_shape(tmp_path / "points.png")
    assert 600 <= width <= 900
    assert 600 <= height <= 900


@pytest.mark.parametrize(
    "x",
    [torch.zeros(0, 1, 8, 8, dtype=torch.uint8), torch.zeros(4, 1, 8, 8), torch.zeros(4, 3), torch.zeros(4, 2, 8, 8)],
)
def test_what_cannot_be_drawn_is_refused_and_leaves_nothing(tmp_path: Path, x: Tensor) -> None:
    for draw in (grid, scatter):
        with pytest.raises(ValueError, match=r"no samples|can draw"):
            draw(x, tmp_path / "grid.png")
    assert not list(tmp_path.iterdir())
