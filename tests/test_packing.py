"""Packing a collection: by one process at a time, gone on from where another was killed, and random crops of it."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from collections_made import COUNT, as_folder, as_zip, write_tree
from diffsweep.data import packing
from diffsweep.data.decode import PictureFormat
from diffsweep.data.images import Images
from diffsweep.data.packed_source import PackedSource, RandomCrops
from diffsweep.data.packing import Packing, pack
from diffsweep.settings import SPLITS, LoadingSettings
from diffsweep.training.batches import resident

READ = PictureFormat.read


class Killed(BaseException):
    """What a kill is to a test in the same process."""


def counted(monkeypatch: pytest.MonkeyPatch, at: Callable[[int], object] = lambda count: None) -> list[int]:
    """Numbers of the pictures that are read from now on; `at` is called with each."""
    numbers: list[int] = []

    def read(self: PictureFormat, content: bytes | np.ndarray) -> Image.Image:
        numbers.append(len(numbers))
        at(len(numbers))
        return READ(self, content)

    monkeypatch.setattr(PictureFormat, "read", read)
    return numbers


def test_of_two_that_want_the_same_pictures_one_packs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = as_folder(tmp_path)
    begun, wanted = threading.Event(), threading.Event()

    def wait(count: int) -> None:
        begun.set()
        assert wanted.wait(60)

    numbers = counted(monkeypatch, wait)
    monkeypatch.setattr(packing, "say", lambda *_: wanted.set())
    found = []

    def work() -> None:
        found.append(pack(folder, Packing(8), tmp_path / "cache", show=False))

    threads = [threading.Thread(target=work) for _ in range(2)]
    threads[0].start()
    assert begun.wait(60)
    # The second says that it waits, and only then the first goes on.
    threads[1].start()
    for thread in threads:
        thread.join(60)
    assert found[0] == found[1]
    assert len(numbers) == COUNT


def test_a_packing_that_was_killed_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = as_folder(tmp_path)
    monkeypatch.setattr(packing, "_AT_A_TIME", 16)
    monkeypatch.setattr(packing, "_REPORT_SECONDS", 0.0)

    def kill(count: int) -> None:
        if count == 40:
            raise Killed

    counted(monkeypatch, kill)
    with pytest.raises(Killed):
        pack(folder, Packing(8), tmp_path / "cache")
    assert not list((tmp_path / "cache" / "pictures").glob("[!.]*")), "nothing half made is there to be found"
    # As in a job's log, where there is no bar.
    assert "packing pictures: 16 of 60, about" in capsys.readouterr().err
    numbers = counted(monkeypatch)
    found = pack(folder, Packing(8), tmp_path / "cache", show=False)
    assert len(numbers) == COUNT - 32
    assert found.content == pack(as_zip(tmp_path), Packing(8), tmp_path / "other", show=False).content
    assert not list((tmp_path / "cache").rglob("*.tmp*")) + list((tmp_path / "cache").rglob("pixels.npy"))


def test_what_was_decoded_before_broken_pictures_were_refused_is_not_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tree(as_folder(tmp_path), {"0/broken.png": b"x"})
    with pytest.raises(ValueError, match="cannot be read"):
        pack(folder, Packing(8), tmp_path / "cache", show=False)
    numbers = counted(monkeypatch)
    assert pack(folder, Packing(8, broken="skip"), tmp_path / "cache", show=False).broken == 1
    assert not numbers


def test_what_has_changed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = as_folder(tmp_path)
    pack(folder, Packing(8), tmp_path / "cache", show=False)
    assert not capsys.readouterr().err
    names = sorted((folder / "0").iterdir())
    names[1].write_bytes(names[0].read_bytes())
    names[2].unlink()
    write_tree(folder, {"1/new.png": names[0].read_bytes(), "1/newer.png": names[0].read_bytes()})
    pack(folder, Packing(8), tmp_path / "cache", show=False)
    assert "folder has changed since it was last packed (2 added, 1 removed, 1 replaced)" in capsys.readouterr().err


def test_a_disk_that_is_too_small_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match=r"packing needs 0\.0 GB below .*choose another folder with paths\.cache="):
        pack(as_folder(tmp_path), Packing(8), tmp_path / "cache", show=False)


# --- random crops ---------------------------------------------------------------------------------------------------


def large(place: Path, count: int = 8) -> Path:
    """Pictures of 48 x 32 whose red is the column and whose green is the row: a crop tells where it was cut."""
    content = {}
    for number in range(count):
        pixels = np.zeros((32, 48, 3), np.uint8)
        pixels[..., 0], pixels[..., 1], pixels[..., 2] = np.arange(48), np.arange(32)[:, None], number * 9
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "png")
        content[f"{number}.png"] = buffer.getvalue()
    return write_tree(place / "large", content)


def cropped(path: Path, cache: Path, smallest_crop: float = 0.5) -> Images:
    found = pack(path, Packing(16, crop="random", smallest_crop=smallest_crop, test_share=0.3), cache, show=False)
    return Images(
        path=path,
        size=16,
        channels=None,
        crop="random",
        labels="auto",
        broken="refuse",
        test_share=0.3,
        smallest_crop=smallest_crop,
        cache=cache,
        content=found.content,
        shape=found.shape,
        classes=0,
        sigma_data=found.sigma_data,
    )


def test_a_random_crop_is_a_function_of_its_seed(tmp_path: Path) -> None:
    source = cropped(large(tmp_path), tmp_path / "cache").load("train")
    assert isinstance(source, RandomCrops)
    assert resident(source, torch.device("cpu"), LoadingSettings()) is None
    numbers, seeds = torch.tensor([2, 0, 2]), torch.tensor([5, 6, 7])
    first, again = source.augmented(numbers, seeds).x, source.augmented(numbers.flip(0), seeds.flip(0)).x
    assert torch.equal(first, again.flip(0))
    assert not torch.equal(first[0], first[2])
    # The same picture, by its blue, as the crop that was packed of it.
    assert torch.equal(first[:, 2, 0, 0], source.take(numbers).x[:, 2, 0, 0])


def test_random_crops_show_all_places_and_sizes_and_nothing_is_stretched() -> None:
    buffer = io.BytesIO()
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(90) * 2, np.arange(60)[:, None] * 2
    Image.fromarray(pixels).save(buffer, "png")
    crops = [PictureFormat(20, 3, "random", 0.5).decode(buffer.getvalue(), seed) for seed in range(300)]
    width = np.array([int(crop[0, 0, -1]) - int(crop[0, 0, 0]) for crop in crops]) / 2
    height = np.array([int(crop[1, -1, 0]) - int(crop[1, 0, 0]) for crop in crops]) / 2
    left, top = (np.array([int(crop[channel, 0, 0]) for crop in crops]) / 2 for channel in (0, 1))
    assert np.abs(width - height).max() <= 2
    # Between half and all of the shorter side, from edge to edge; a pixel of a crop shows up to three.
    assert 26 <= width.min() <= 31
    assert 55 <= width.max() <= 60
    assert left.min() <= 2
    assert (left + width).max() >= 86
    assert top.min() <= 2
    assert (top + height).max() >= 56


def test_every_pixel_of_a_picture_counts_for_random_crops(tmp_path: Path) -> None:
    folder = large(tmp_path)
    first = cropped(folder, tmp_path / "cache")
    assert cropped(folder, tmp_path / "cache2").content == first.content
    assert cropped(folder, tmp_path / "cache", smallest_crop=0.9).content != first.content
    with Image.open(folder / "0.png") as picture:
        pixels = np.array(picture)
    # A corner that the packed crop need not show.
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        changed = pixels.copy()
        changed[corner] = 255
        Image.fromarray(changed).save(folder / "0.png")
        assert cropped(folder, tmp_path / "cache").content != first.content
    digests = {cropped(folder, tmp_path / "cache").load(split).digest() for split in SPLITS}
    assert len(digests) == 2


def test_a_picture_that_is_gone_is_named(tmp_path: Path) -> None:
    folder = large(tmp_path)
    source = cropped(folder, tmp_path / "cache").load("train")
    assert isinstance(source, RandomCrops)
    for path in folder.iterdir():
        path.write_bytes(b"x")
    with pytest.raises(ValueError, match=r"\d\.png could be read when the pictures were packed, and cannot now"):
        source.augmented(torch.tensor([0]), torch.tensor([0]))


def test_splits_of_packed_pictures_are_read_by_number(tmp_path: Path) -> None:
    found = pack(as_folder(tmp_path), Packing(8), tmp_path / "cache", show=False)
    source = PackedSource(found, "train")
    numbers = torch.tensor([7, 0, 7])
    some = source.take(numbers)
    assert torch.equal(some.x, source.mapped().x[numbers])
    assert torch.equal(some.entries["label"], source.labels[numbers])  # pyright: ignore[reportArgumentType]
