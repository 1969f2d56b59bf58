"""CIFAR-10 is the real one from either source, and distances of natural images grow with every damage done to them."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from diffsweep.data import cifar10
from diffsweep.data.cifar10 import ARCHIVE, BATCHES, BINARY, CIFAR10, LABELS, SHEETS
from diffsweep.data.examples import Examples, Split
from diffsweep.data.modality import from_bytes
from diffsweep.evaluation.efficientnet import efficientnet
from diffsweep.evaluation.features import Features
from diffsweep.evaluation.frechet import Frechet
from diffsweep.evaluation.kernel import KernelDistance
from fixed_reference import Fixed, noisy
from prerequisites import leave_out, need_cifar10


@pytest.fixture(scope="module")
def train() -> Examples:
    return CIFAR10(need_cifar10()).load("train")


@pytest.fixture(scope="module")
def test() -> Examples:
    return CIFAR10(need_cifar10()).load("test")


def write_binary(folder: Path, split: Split, examples: Examples) -> None:
    """The split as the files of the binary version, by its documentation: a label, then red, green, blue by rows."""
    folder.mkdir(parents=True, exist_ok=True)
    records = torch.cat([examples.labels[:, None].to(torch.uint8), examples.x.flatten(1)], dim=1)
    for batch, content in zip(BATCHES[split], records.split(10_000), strict=True):
        (folder / f"{batch}.bin").write_bytes(content.contiguous().numpy().data)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ValueError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_facts_that_everybody_quotes(train: Examples, test: Examples) -> None:
    assert train.labels.bincount().tolist() == [5000] * 10
    assert test.labels.bincount().tolist() == [1000] * 10
    # Frog, truck, truck, deer, automobile; cat, ship, ship, airplane, frog.
    assert train.labels[:5].tolist() == [6, 9, 9, 4, 1]
    assert test.labels[:5].tolist() == [3, 8, 8, 0, 6]
    # Shares of the 256 values in red, green and blue: a float copy of all would take more than a gigabyte.
    parts = [torch.stack([one.flatten().bincount(minlength=256) for one in x.unbind(1)]) for x in train.x.split(5000)]
    shares = sum(parts, torch.zeros(3, 256)).double() / (50_000 * 32 * 32)
    values = torch.arange(256) / 255
    mean = shares @ values.double()
    std = (shares @ values.double().square() - mean.square()).sqrt()
    assert torch.allclose(mean, torch.tensor([0.4914, 0.4822, 0.4465]).double(), atol=1e-4)
    assert torch.allclose(std, torch.tensor([0.2470, 0.2435, 0.2616]).double(), atol=1e-4)
    encoded = from_bytes(torch.arange(256).to(torch.uint8)).double()
    assert (shares @ encoded.square()).mean().sqrt() == pytest.approx(CIFAR10().sigma_data, abs=5e-4)


def test_both_sources_and_the_archive_give_the_same(
    train: Examples, test: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_binary(tmp_path / BINARY, "train", train)
    write_binary(tmp_path / BINARY, "test", test)
    assert CIFAR10(tmp_path).load("train").digest() == train.digest()
    # The archive, with more in it than it should have; first as a user puts it there, then as it is downloaded.
    site = tmp_path / "site"
    site.mkdir()
    with tarfile.open(site / ARCHIVE, "w:gz", compresslevel=0) as tar:
        tar.add(tmp_path / BINARY, BINARY)
        tar.add(__file__, "../evil.py")
        tar.add(__file__, f"{BINARY}/evil.py")
    put = tmp_path / "put"
    put.mkdir()
    shutil.move(site / ARCHIVE, put / ARCHIVE)
    assert CIFAR10(put, download=False).load("test").digest() == test.digest()
    assert {path.name for path in put.iterdir()} == {ARCHIVE, BINARY}
    assert {path.stem for path in (put / BINARY).iterdir()} == set(cifar10.SHA256)

    shutil.move(put / ARCHIVE, site / ARCHIVE)
    monkeypatch.setattr(cifar10, "URL", (site / ARCHIVE).as_uri())
    fetched = tmp_path / "fetched"
    # Anything but the original archive is refused, and nothing is left of it.
    assert "invalid hash" in refusal(lambda: CIFAR10(fetched).load("test"))
    assert list(fetched.iterdir()) == []
    monkeypatch.setattr(cifar10, "ARCHIVE_SHA256", "")
    assert CIFAR10(fetched).load("test").digest() == test.digest()
    assert [path.name for path in fetched.iterdir()] == [BINARY]
    assert not (tmp_path / "evil.py").exists()


def sheets(folder: Path) -> None:
    folder.mkdir()
    for name in ("test_batch.png", LABELS["test"]):
        (folder / name).symlink_to(need_cifar10() / SHEETS / name)


def other_label(path: Path) -> None:
    labels = json.loads(path.read_bytes())
    path.unlink()
    path.write_text(json.dumps([labels[0] + 1, *labels[1:]]))


def written(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.unlink()
        path.write_bytes(content)

    return write


def picture(mode: str, size: tuple[int, int]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.unlink()
        Image.new(mode, size).save(path)

    return write


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("test_batch.png", written(b""), "is not CIFAR-10's"),
        ("test_batch.png", written(b"GIF89a"), "is not CIFAR-10's"),
        ("test_batch.png", picture("RGB", (1024, 10)), "1024 x 10 RGB, not 1024 x 10000 RGB"),
        ("test_batch.png", picture("L", (1024, 10_000)), "1024 x 10000 L"),
        ("test_batch.png", picture("RGB", (1024, 10_000)), "SHA-256"),
        (LABELS["test"], other_label, "SHA-256"),
        (LABELS["test"], written(b"[1, 2]"), "not a list of 10000 labels"),
        (LABELS["test"], written(b"[-1, 300]"), "not a list of 10000 labels"),
        (LABELS["test"], written(b"not json"), "not a list of 10000 labels"),
    ],
)
def test_damaged_sheets_are_refused_by_name(
    name: str, damage: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    folder = tmp_path / SHEETS
    if not (need_cifar10() / SHEETS).is_dir():
        leave_out("CIFAR-10 is here in its binary version only")
    sheets(folder)
    damage(folder / name)
    line = refusal(lambda: CIFAR10(tmp_path).load("test"))
    assert words in line
    assert str(folder) in line


@pytest.mark.parametrize("content", [b"", b"\0" * 30_730_000], ids=["empty", "zeros"])
def test_damaged_binary_files_are_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / BINARY / "test_batch.bin"
    path.parent.mkdir()
    path.write_bytes(content)
    assert f"{path} is not CIFAR-10's" in refusal(lambda: CIFAR10(tmp_path).load("test"))


@pytest.mark.parametrize("content", [b"", b"no archive"], ids=["empty", "text"])
def test_an_archive_that_cannot_be_read_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / ARCHIVE).write_bytes(content)
    assert f"{tmp_path / ARCHIVE} cannot be read" in refusal(lambda: CIFAR10(tmp_path).load("test"))


def test_where_it_is_not_one_line_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "URL", (tmp_path / "nowhere").as_uri())
    for download, words in ((True, "downloading failed"), (False, "download=false")):
        line = refusal(lambda download=download: CIFAR10(tmp_path / "mine", download=download).load("test"))
        for word in (words, cifar10.URL, str(tmp_path / "mine"), BINARY, SHEETS):
            assert word in line
    assert "root is not set" in refusal(lambda: CIFAR10().load("test"))
    assert "shape=(3, 28, 28)" in refusal(lambda: CIFAR10(shape=(3, 28, 28)))
    assert "classes=100" in refusal(lambda: CIFAR10(classes=100))


# --- distances ------------------------------------------------------------------------------------------------------

# A small size, for the many pictures of a test; few pictures for 1280 dimensions, so damages are coarse: at this number
# the Frechet distance, unlike the kernel distance, is not yet sure to rise with a blur of less than a pixel.
SIZE, IMAGES = 128, 100


@pytest.fixture(scope="module")
def distances(test: Examples) -> dict[str, list[dict[str, float]]]:
    """By damage: both distances from real images, undamaged first, damage growing."""
    extractor = efficientnet(SIZE)

    def features(x: Tensor) -> Features:
        return Features.collect(extractor.batches(x, 50), None, ())

    def first(classes: int, skipped: int) -> Tensor:
        each = IMAGES // classes
        return torch.cat([test.x[test.labels == label][skipped : skipped + each] for label in range(classes)])

    reference, x = Fixed(features(first(10, 0))), first(10, IMAGES)
    damages = {
        "noise": [noisy(x, std) for std in (10, 40)],
        "blur": [gaussian_blur(x, [13, 13], [std, std]) for std in (1.6, 3.2)],
        "dropped classes": [first(classes, IMAGES) for classes in (2, 1)],
    }

    def measured(drawn: Features) -> dict[str, float]:
        return {
            metric.short: metric.prepare(drawn, reference)(None)[metric.short]
            for metric in (Frechet(), KernelDistance())
        }

    undamaged = measured(features(x))
    return {name: [undamaged, *(measured(features(one)) for one in sets)] for name, sets in damages.items()}


@pytest.mark.parametrize("short", ["fd", "kd"])
@pytest.mark.parametrize("damage", ["noise", "blur", "dropped classes"])
def test_distances_grow_with_damage_to_real_photographs(
    distances: dict[str, list[dict[str, float]]], damage: str, short: str
) -> None:
    values = [one[short] for one in distances[damage]]
    assert values == sorted(values)
    assert len(set(values)) == 3
    if short == "kd":
        # Unbiased: nothing but chance is left of real images' distance from others.
        assert abs(values[0]) < 0.2 * values[1]
