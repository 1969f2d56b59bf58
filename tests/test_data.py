"""Data are what they claim to be, never change unnoticed, and say in one line what is wrong with them."""

import gzip
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import hydra.utils
import pytest
import torch
import torchvision.datasets
from omegaconf import OmegaConf

from diffsweep.data import fashion_mnist
from diffsweep.data.digits import Digits
from diffsweep.data.examples import Dataset, Examples, decode, encode
from diffsweep.data.fashion_mnist import DEBIAN, DOWNLOADED, FashionMNIST
from diffsweep.data.mixture import RingOfGaussians

CONF = Path(__file__).parents[1] / "conf" / "dataset"
IMAGES, LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"


def need_fashion_mnist() -> None:
    if not DEBIAN.is_dir() and "CI" not in os.environ:
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")


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


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_yaml_gives_the_data_that_it_describes(path: Path, tmp_path: Path) -> None:
    if path.stem == "fashion_mnist":
        need_fashion_mnist()
    config = OmegaConf.create({"paths": {"data": str(tmp_path)}, "dataset": OmegaConf.load(path)})
    dataset: Dataset = hydra.utils.instantiate(config.dataset)
    assert dataset.name == path.stem
    train, test = dataset.load("train"), dataset.load("test")
    for split in (train, test):
        assert split.x.shape == (len(split), *dataset.shape)
        assert split.labels.unique().tolist() == list(range(dataset.classes))
    assert train.digest() != test.digest()
    assert dataset.load("train").digest() == train.digest()
    assert encode(train.x).double().square().mean().sqrt().item() == pytest.approx(dataset.sigma_data, rel=0.02)


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
        (torch.zeros(3, 1, 2, 2), torch.arange(3)),
        (torch.zeros(3, 2, dtype=torch.float64), torch.arange(3)),
        (torch.zeros(3, 2), torch.arange(2)),
        (torch.zeros(3, 2), torch.zeros(3)),
    ],
)
def test_examples_of_another_kind_are_refused(x: torch.Tensor, labels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="must be"):
        Examples(x, labels)


def test_quantisation_is_exact_once_and_never_wraps() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert encode(every).aminmax() == (-1, 1)
    assert torch.equal(decode(encode(every), torch.uint8), every)
    step = 1 / 127.5
    assert decode(torch.tensor([-9.0, -1.02, -1 + 0.51 * step, 1.02, 9.0]), torch.uint8).tolist() == [0, 0, 1, 255, 255]
    points = torch.randn(5, 2)
    assert torch.equal(decode(encode(points), torch.float32), points)


@pytest.mark.parametrize("like", [torch.uint8, torch.float32])
def test_broken_values_are_counted_and_refused(like: torch.dtype) -> None:
    x = torch.zeros(10)
    x[3], x[4] = torch.nan, torch.inf
    with pytest.raises(ValueError, match="2 of 10 values"):
        decode(x, like)


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


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RingOfGaussians(radius=5.0), "sigma_data=0.995.*3.537"),
        (lambda: RingOfGaussians(std=0.0), "dataset.std must be positive, not 0.0"),
        (lambda: RingOfGaussians(size=0), "dataset.size must be at least 1, not 0"),
        (lambda: RingOfGaussians(shape=(3,)), r"shape is \(2,\)"),
        (lambda: Digits(shape=(1, 28, 28)), r"dataset.shape=\(1, 28, 28\).*\(1, 8, 8\)"),
        (lambda: FashionMNIST(classes=3), "dataset.classes=3.*10"),
        (lambda: Digits(sigma_data=-1), "sigma_data must be positive, not -1"),
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
