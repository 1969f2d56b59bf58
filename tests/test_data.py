"""Data are what they claim to be, never change unnoticed, and say in one line what is wrong with them."""

import gzip
import math
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra.utils
import pytest
import torch
import torchvision.datasets
from hydra import compose, initialize_config_dir
from sklearn.datasets import make_moons

from clips_made import own_sounds, own_videos
from collections_made import as_folder
from diffsweep.data import fashion_mnist
from diffsweep.data.analog_bits import AnalogBits, from_bits, to_bits
from diffsweep.data.checkerboard import Checkerboard
from diffsweep.data.digits import Digits
from diffsweep.data.examples import Dataset, Examples, Split, load_checked
from diffsweep.data.fashion_mnist import DEBIAN, DOWNLOADED, FashionMNIST
from diffsweep.data.mixture import RingOfGaussians
from diffsweep.data.moons import Moons
from diffsweep.data.plane import Plane
from diffsweep.data.source import Source, in_memory
from diffsweep.data.spirals import Spirals
from diffsweep.data.swissroll import SwissRoll
from diffsweep.training.batches import Batches
from prerequisites import need_cifar10, need_fashion_mnist, need_mnist
from settings import training_settings

CONF = Path(__file__).parents[1] / "conf"
IMAGES, LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    need_fashion_mnist()
    for name in (IMAGES, LABELS):
        shutil.copy(DEBIAN / name, tmp_path / name)
    return tmp_path


def examples(seed: int = 0) -> Examples:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (6, 1, 4, 4), dtype=torch.uint8, generator=draw)
    return Examples(x, torch.arange(6))


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "dataset").glob("*.yaml")))
def test_every_yaml_gives_the_data_that_it_describes(name: str, tmp_path: Path) -> None:
    if name.startswith("fashion_mnist"):
        need_fashion_mnist()
    needs = {"cifar10": need_cifar10, "mnist": need_mnist}
    root = needs[name]() if name in needs else tmp_path
    collection = name in ("celeba", "emoji", "imagenet", "images")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        own = [f"dataset.path={as_folder(tmp_path)}", "dataset.size=8", "dataset.test_share=0.5"]
        own = {"video": own_videos(tmp_path), "audio": own_sounds(tmp_path)}.get(name, own if collection else [])
        places = [f"paths.data={root}", f"paths.runs={tmp_path}", *own]
        config = compose("config", [f"dataset={name}", *places])
    dataset: Dataset = hydra.utils.instantiate(config.dataset)
    assert dataset.name == ("images" if collection else name)
    train, test = dataset.load("train"), dataset.load("test")
    for split in (train, test):
        some = split.take(torch.tensor([len(split) - 1, 0]))
        assert some.x.shape == (2, *dataset.stored)
        assert torch.equal(some.labels, split.labels[[-1, 0]])
        assert split.labels.unique().tolist() == list(range(dataset.classes))
    assert train.digest() != test.digest()
    assert dataset.load("train").digest() == train.digest()
    # As much as fits into memory eightfold.
    x = train.take(torch.arange(min(len(train), 20_000_000 // math.prod(dataset.shape)))).x
    seen = dataset.encode(x)
    assert seen.shape[1:] == dataset.shape
    assert seen.double().square().mean().sqrt().item() == pytest.approx(dataset.sigma_data, rel=0.02)
    assert torch.equal(dataset.decode(seen), x)


def test_entries_go_with_their_examples() -> None:
    known = {"caption": ["a", "b", "c"], "weight": torch.tensor([1.0, 2.0, 3.0])}
    all_of_them = Examples(torch.zeros(3, 2), torch.tensor([4, 5, 6]), known)
    some = all_of_them.take(torch.tensor([2, 0, 2]))
    assert some.entries["caption"] == ["c", "a", "c"]
    assert some.entries["weight"] == pytest.approx(torch.tensor([3.0, 1.0, 3.0]))
    assert some.entries["label"] is some.labels
    assert some.labels.tolist() == [6, 4, 6]
    without = Examples(torch.zeros(3, 2))
    assert not without.entries
    assert without.labels.tolist() == [0, 0, 0]
    assert without.digest() == Examples(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)).digest()
    others = [{**known, "caption": ["a", "b", "d"]}, {**known, "weight": torch.zeros(3)}, {}]
    digests = {Examples(all_of_them.x, all_of_them.labels, entries).digest() for entries in [known, *others]}
    assert len(digests) == 4
    with pytest.raises(ValueError, match="there must be 3 of the entry caption, one for each example, not 2"):
        Examples(torch.zeros(3, 2), entries={"caption": ["a", "b"]})


class Numbers:
    """A source that lies nowhere: example i is i everywhere, its label i % 3."""

    labels = torch.arange(20) % 3

    def __len__(self) -> int:
        return 20

    def take(self, numbers: torch.Tensor) -> Examples:
        return Examples(numbers.float()[:, None].expand(-1, 2).contiguous(), self.labels[numbers])

    def digest(self) -> str:
        return "numbers"


class Own(Dataset):
    """A dataset of the user's own with any object in place of a split."""

    name = "own"

    def __init__(self, source: Any, classes: int = 3) -> None:
        super().__init__((2,), classes, 1.0)
        self.source = source

    def load(self, split: Split) -> Source:
        return self.source


def test_any_object_with_four_members_is_a_split() -> None:
    source = load_checked(Own(Numbers()), "train")
    assert source.digest() == "numbers"
    here = in_memory(source, torch.device("cpu"), chunk=7)
    assert here.x[:, 1].tolist() == list(range(20))
    assert torch.equal(here.labels, source.labels)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            Own([1, 2]),
            "dataset=own, split train: load gave a list without labels, take, digest: give Examples",
        ),
        (Own(Numbers(), classes=2), "the labels of dataset=own, split train, go from 0 to 2, but dataset.classes=2"),
        (
            Own(Examples(torch.zeros(2, 3))),
            r"take gave torch.float32 \(1, 3\) for one example, and it is torch.float32 \(1, 2\)",
        ),
    ],
)
def test_what_is_no_split_is_refused_in_one_line(dataset: Dataset, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_checked(dataset, "train")


def test_digest_sees_every_value_label_shape_and_type() -> None:
    one = examples()
    value, label = one.x.clone(), one.labels.clone()
    value[3, 0, 2, 1] ^= 1
    label[5] = 0
    others = [
        Examples(value, one.labels),
        Examples(one.x, label),
        Examples(one.x.view(6, 1, 2, 8), one.labels),
        Examples(one.x.float().view(6, 16), one.labels),
        one.take(torch.tensor([1, 0, 2, 3, 4, 5])),
    ]
    assert examples().digest() == one.digest()
    assert len({one.digest(), *(other.digest() for other in others)}) == 6


def test_take_keeps_images_and_labels_together() -> None:
    taken = examples().take(torch.tensor([4, 1]))
    assert taken.labels.tolist() == [4, 1]
    assert torch.equal(taken.x, examples().x[[4, 1]])


@pytest.mark.parametrize(
    ("x", "labels"),
    [
        (torch.zeros(3), torch.arange(3)),
        (torch.zeros(3, 2, dtype=torch.float64), torch.arange(3)),
        (torch.zeros(3, 2), torch.arange(2)),
        (torch.zeros(3, 2), torch.zeros(3)),
    ],
)
def test_examples_of_another_kind_are_refused(x: torch.Tensor, labels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="must be"):
        Examples(x, labels)


def test_digits_are_split_once_and_for_all() -> None:
    train, test = Digits().load("train"), Digits().load("test")
    assert (len(train), len(test)) == (1297, 500)
    shares = torch.bincount(test.labels) / torch.bincount(torch.cat((train.labels, test.labels)))
    assert (shares - 500 / 1797).abs().max() < 0.01
    # The split is part of every published number: a new NumPy or scikit-learn must not move a single image.
    assert train.digest().startswith("de008e59")
    assert test.digest().startswith("b3c94752")


def test_ring_has_the_density_that_it_exposes() -> None:
    dataset = RingOfGaussians(classes=5, radius=2.0, std=0.3, size=50_000, sigma_data=1.45)
    train = dataset.load("train")
    assert dataset.weights.sum() == pytest.approx(1)
    for label in range(5):
        part = train.x[train.labels == label].double()
        assert len(part) / len(train) == pytest.approx(dataset.weights[label].item(), rel=0.05)
        assert (part.mean(dim=0) - dataset.means[label]).abs().max() < 0.02
        assert part.std(dim=0).numpy() == pytest.approx(dataset.stds[label].item(), rel=0.03)
    other = RingOfGaussians(classes=5, radius=2.0, std=0.3, size=50_000, sigma_data=1.45, seed=1)
    assert other.load("train").digest() != train.digest()


def test_points_of_the_roll_lie_on_the_roll() -> None:
    x, labels = drawn(SwissRoll(classes=4, std=0.0, sigma_data=1.0, size=20_000))
    radius = x.norm(dim=1)
    # The longest radius is that of 4.5 pi, which gives the scale; then every radius tells its angle.
    angle = radius / radius.max() * 4.5 * math.pi
    torch.testing.assert_close(x, radius[:, None] * torch.stack((angle.cos(), angle.sin()), 1), rtol=0, atol=2e-3)
    along = (angle / math.pi - 1.5) / 3
    uniform(along)
    # Rounding to float32 may move a point over the border of its piece, by no more than that.
    assert (along * 4 - labels - 0.5).abs().max() < 0.501


def test_moons_are_those_of_scikit_learn() -> None:
    x, labels = drawn(Moons(std=0.0, sigma_data=1.0, size=2000))
    theirs, moon = make_moons(2000, shuffle=False)
    curve = torch.from_numpy(theirs) - torch.tensor([0.5, 0.25])
    curve = curve / curve.square().mean().sqrt()
    for label in (0, 1):
        nearest = torch.cdist(x[labels == label], curve[torch.from_numpy(moon) == label]).min(1).values
        assert nearest.max() < 5e-3
        end = x[labels == label, 0]
        assert end.min() < curve[torch.from_numpy(moon) == label, 0].min() + 0.01
        assert end.max() > curve[torch.from_numpy(moon) == label, 0].max() - 0.01


def test_arms_of_the_spirals_wind_with_the_radius() -> None:
    x, labels = drawn(Spirals(classes=3, turns=0.7, std=0.0, sigma_data=1.0, size=20_000))
    radius = x.norm(dim=1)
    angle = 2 * math.pi * (0.7 * radius / 2 + labels / 3)
    torch.testing.assert_close(x, radius[:, None] * torch.stack((angle.cos(), angle.sin()), 1), rtol=0, atol=1e-5)
    uniform((radius / 2) ** 2)


@pytest.mark.parametrize("cells", [2, 4, 6])
def test_the_board_is_uniform_on_every_other_square(cells: int) -> None:
    x, labels = drawn(Checkerboard(cells=cells, classes=cells**2 // 2, size=40_000))
    place = (x / math.sqrt(3) + 1) / 2 * cells
    square = place.floor()
    assert ((square >= 0) & (square < cells)).all()
    assert (square.sum(1) % 2 == 0).all()
    assert len({(*where, label) for *where, label in torch.cat((square, labels[:, None]), 1).tolist()}) == cells**2 // 2
    assert torch.bincount(labels) / len(x) * cells**2 / 2 == pytest.approx(1, abs=0.15)
    for side in (0, 1):
        uniform((place - square)[:, side])
        uniform(place[:, side] / cells)


@pytest.mark.parametrize("shape", [SwissRoll, Moons, Spirals, Checkerboard])
def test_shapes_have_unit_scale_and_gaussian_noise(shape: type[Plane]) -> None:
    sharp, labels = drawn(shape(std=0.0, sigma_data=1.0, size=200_000))  # pyright: ignore[reportCallIssue]
    assert sharp.square().mean().sqrt().item() == pytest.approx(1, rel=0.004)
    noisy, same = drawn(shape(std=0.3, sigma_data=1.044, size=200_000))  # pyright: ignore[reportCallIssue]
    assert torch.equal(labels, same)
    noise = (noisy - sharp) / 0.3
    for side in (0, 1):
        uniform(torch.special.ndtr(noise[:, side]))
    assert abs(torch.corrcoef(torch.cat((noise, sharp), 1).T)[:2].fill_diagonal_(0)).max() < 0.01
    other, _ = drawn(shape(std=0.0, sigma_data=1.0, size=200_000, seed=1))  # pyright: ignore[reportCallIssue]
    assert not torch.equal(other, sharp)


def drawn(dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    train = in_memory(dataset.load("train"), torch.device("cpu"))
    return train.x.double(), train.labels


def uniform(p: torch.Tensor) -> None:
    """Kolmogorov-Smirnov at 0.1 %: are these uniform in (0, 1)?"""
    steps = (torch.arange(len(p)) + 0.5) / len(p)
    assert (p.sort().values - steps).abs().max() < 1.95 / math.sqrt(len(p))


def test_all_256_values_survive_their_bits() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(64, 2, 1, 2)
    bits = to_bits(every)
    assert bits.shape == (64, 16, 1, 2)
    assert bits.dtype == torch.float32
    for n, channel, column in ((0, 0, 1), (17, 1, 0), (63, 1, 1)):
        written = "".join("1" if bit > 0 else "0" for bit in bits[n, 8 * channel : 8 * channel + 8, 0, column])
        assert written == f"{int(every[n, channel, 0, column]):08b}"
    assert bits.abs().eq(1).all()
    assert torch.equal(from_bits(bits), every)
    noise = torch.rand(bits.shape, generator=torch.Generator().manual_seed(0)) * 1.98 - 0.99
    assert torch.equal(from_bits(bits + noise), every)


def test_bits_leave_their_images_as_they_are() -> None:
    dataset = AnalogBits(Digits(), (8, 8, 8), 10)
    assert dataset.name == "digits_bits"
    assert dataset.stored == (1, 8, 8)
    train = dataset.load("train")
    assert train.digest() == Digits().load("train").digest()
    broken = torch.ones(1, 8, 8, 8)
    broken[0, 3, 2, 1] = torch.nan
    with pytest.raises(ValueError, match="1 of 512 values"):
        dataset.decode(broken)


def test_noise_has_the_shape_that_the_network_sees() -> None:
    dataset = AnalogBits(Digits(), (8, 8, 8), 10)
    train = dataset.load("test")

    def draw(shape: tuple[int, ...], stream: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.rand(shape[0], generator=stream), torch.randn(shape, generator=stream)

    (batch,) = Batches(train, draw, training_settings(steps=1, batch_size=5), shape=dataset.shape)
    assert dataset.encode(batch.x0).shape == batch.eps.shape == (5, 8, 8, 8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RingOfGaussians(radius=5.0), "sigma_data=0.995.*3.537"),
        (lambda: RingOfGaussians(std=0.0), "^std=0.0 must be above 0"),
        (lambda: RingOfGaussians(size=0), "^size=0 must be a whole number, 1 or more"),
        (lambda: RingOfGaussians(shape=(3,)), r"shape is \(2,\)"),
        (lambda: Digits(shape=(1, 28, 28)), r"^shape=\(1, 28, 28\).*\(1, 8, 8\)"),
        (lambda: FashionMNIST(classes=3), "^classes=3.*10"),
        (lambda: Digits(sigma_data=-1), "^sigma_data=-1 must be above 0"),
        (lambda: AnalogBits(RingOfGaussians(), (16,), 8), "^inner=mixture holds points"),
        (lambda: AnalogBits(Digits(), (1, 8, 8), 10), r"^shape=\(1, 8, 8\).*\(8, 8, 8\)"),
        (lambda: AnalogBits(Digits(), (8, 8, 8), 3), "^classes=3.*10"),
        (lambda: AnalogBits(Digits(), (8, 8, 8), 10, 0.8), "^sigma_data=0.8.*1.0"),
        (lambda: SwissRoll(std=-0.1), "^std=-0.1 must be 0 or more"),
        (lambda: SwissRoll(std=1.0), "sigma_data=1.001.*1.414"),
        (lambda: SwissRoll(shape=(3,)), r"^shape=\(3,\) does not fit swissroll"),
        (lambda: Moons(classes=3), "^classes=3 does not fit moons"),
        (lambda: Moons(seed=-1), "^seed=-1 must be a whole number, 0 or more"),
        (lambda: Spirals(classes=0), "^classes=0 must be a whole number, 1 or more"),
        (lambda: Spirals(turns=math.inf), "^turns=inf must be 0 or more"),
        (lambda: Checkerboard(cells=3), "^cells=3 must be even"),
        (lambda: Checkerboard(cells=6), "^classes=8 does not fit a board of 6 x 6, whose classes is 18"),
        (lambda: Digits().load("valid"), "no split 'valid': choose train or test"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_wrong_figures_are_refused_in_one_line(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)


def idx(magic: int, shape: tuple[int, ...], values: bytes) -> bytes:
    return gzip.compress(struct.pack(f">{1 + len(shape)}I", magic, *shape) + values, compresslevel=1)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda whole: b"", "0 bytes|an idx header"),
        (lambda whole: whole[:1000], "not a whole gzip file .1000 bytes"),
        (lambda whole: b"<html>not found</html>", "not a whole gzip file"),
        (lambda whole: whole[:2000] + bytes([whole[2000] ^ 255]) + whole[2001:], "not a whole gzip file"),
        (lambda whole: gzip.compress(b""), "0 bytes, fewer than the 8"),
        (lambda whole: idx(2051, (10_000,), bytes(10_000)), "magic number 2051, not 2049"),
        (lambda whole: idx(2049, (60_000,), bytes(60_000)), r"shape \(60000,\), not \(10000,\)"),
        (lambda whole: idx(2049, (10_000,), bytes(9_999)), "9999 values, not the 10000"),
        (lambda whole: idx(2049, (10_000,), bytes(10_000)), "not Fashion-MNIST's"),
    ],
)
def test_damaged_file_in_root_is_an_error_that_names_it(
    root: Path, damage: Callable[[bytes], bytes], words: str
) -> None:
    path = root / LABELS
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=words) as error:
        FashionMNIST(root).load("test")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_root_comes_before_the_package_and_needs_only_the_split(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = FashionMNIST().load("test").digest()
    monkeypatch.setattr(fashion_mnist, "DEBIAN", root / "absent")
    assert FashionMNIST(root).load("test").digest() == expected


def test_when_no_place_has_the_files_all_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise RuntimeError("Error downloading\nno route to host")

    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", offline)
    with pytest.raises(ValueError, match="was not found") as error:
        FashionMNIST(tmp_path / "mine").load("test")
    line = str(error.value)
    for words in (
        f"{tmp_path / 'mine'} lacks",
        f"{tmp_path / 'debian'} lacks",
        "downloading failed",
        "no route to host",
    ):
        assert words in line
    assert "\n" not in line
    with pytest.raises(ValueError, match="downloading is switched off"):
        FashionMNIST(tmp_path / "mine", download=False).load("test")
    with pytest.raises(ValueError, match="nothing can be downloaded without"):
        FashionMNIST().load("test")
    assert not list((tmp_path / "mine").rglob(".download*"))


def test_download_is_moved_into_root_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_fashion_mnist()

    def download(folder: str, download: bool) -> None:
        assert download
        shutil.copytree(DEBIAN, Path(folder) / DOWNLOADED)

    expected = FashionMNIST().load("test").digest()
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", download)
    assert FashionMNIST(tmp_path).load("test").digest() == expected
    assert sorted(path.name for path in (tmp_path / DOWNLOADED).iterdir()) == sorted(fashion_mnist.VALUES)
    monkeypatch.delattr(torchvision.datasets, "FashionMNIST")
    assert FashionMNIST(tmp_path).load("test").digest() == expected
