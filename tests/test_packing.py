"""Packing a collection: by one process at a time, gone on from where another was killed, and random crops of it."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clips_made import gif_folder, wav_folder
from collections_made import COUNT, as_folder, files, write_tree
from diffsweep.data import packing
from diffsweep.data.collections.described import described
from diffsweep.data.collections.names import natural
from diffsweep.data.decode import PictureFormat
from diffsweep.data.decoders import Decoder, PictureDecoder, SoundDecoder, VideoDecoder
from diffsweep.data.images import Images
from diffsweep.data.packed_source import PackedSource, RandomCrops
from diffsweep.data.packing import Packing, pack
from diffsweep.settings import SPLITS, LoadingSettings
from diffsweep.training.batches import resident

PROGRAMS = Path(__file__).parent / "programs"
DECODERS: dict[str, Decoder] = {
    "pictures": PictureDecoder(8),
    "videos": VideoDecoder(8, 4),
    "sounds": SoundDecoder(8000, 2048),
}
KINDS = pytest.mark.parametrize("kind", DECODERS)


def folder_of(kind: str, place: Path) -> Path:
    """A collection of `COUNT` members in a few classes."""
    makers = {"pictures": as_folder, "videos": gif_folder, "sounds": wav_folder}
    return makers[kind](place) if kind == "pictures" else makers[kind](place, COUNT // 2)  # pyright: ignore[reportCallIssue]


def counted(monkeypatch: pytest.MonkeyPatch, kind: str, at: Callable[[int], object] = lambda count: None) -> list[int]:
    """Numbers of the members that are decoded from now on; `at` is called with each."""
    numbers: list[int] = []
    decode = type(DECODERS[kind]).decode

    def decode_and_count(self: Any, content: Any) -> Any:
        numbers.append(len(numbers))
        at(len(numbers))
        return decode(self, content)

    monkeypatch.setattr(type(DECODERS[kind]), "decode", decode_and_count)
    return numbers


@KINDS
def test_of_two_that_want_the_same_members_one_packs(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(kind, tmp_path)
    begun, wanted = threading.Event(), threading.Event()

    def wait(count: int) -> None:
        begun.set()
        assert wanted.wait(60)

    numbers = counted(monkeypatch, kind, wait)
    monkeypatch.setattr(packing, "say", lambda *_: wanted.set())
    found = []

    def work() -> None:
        found.append(pack(folder, Packing(DECODERS[kind]), tmp_path / "cache", show=False))

    threads = [threading.Thread(target=work) for _ in range(2)]
    threads[0].start()
    assert begun.wait(60)
    # The second says that it waits, and only then the first goes on.
    threads[1].start()
    for thread in threads:
        thread.join(60)
    assert found[0] == found[1]
    assert len(numbers) == COUNT


@KINDS
def test_a_packing_that_was_killed_is_gone_on_from(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = folder_of(kind, tmp_path), tmp_path / "cache"
    program = [sys.executable, str(PROGRAMS / "killed_packing.py"), str(folder), kind, str(cache), "40"]
    environment = {**os.environ, "PYTHONPATH": str(PROGRAMS.parent)}
    killed = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    # As in a job's log, where there is no bar.
    assert f"packing {kind}: 16 of 60, about" in killed.stderr
    assert not list((cache / kind).glob("[!.]*")), "nothing half made is there to be found"
    numbers = counted(monkeypatch, kind)
    found = pack(folder, Packing(DECODERS[kind]), cache, show=False)
    assert 0 < len(numbers) < COUNT - 16
    whole = pack(folder, Packing(DECODERS[kind]), tmp_path / "other", show=False)
    assert found.content == whole.content
    for name in ("train.npy", "test.npy", "train.labels.npy", "about.json"):
        assert (found.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert not list(cache.rglob("*.tmp*")) + list(cache.rglob("values.npy"))


def test_what_was_decoded_before_broken_pictures_were_refused_is_not_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tree(as_folder(tmp_path), {"0/broken.png": b"x"})
    with pytest.raises(ValueError, match="cannot be read"):
        pack(folder, Packing(PictureDecoder(8)), tmp_path / "cache", show=False)
    numbers = counted(monkeypatch, "pictures")
    assert pack(folder, Packing(PictureDecoder(8), broken="skip"), tmp_path / "cache", show=False).broken == 1
    assert not numbers


@KINDS
def test_what_has_changed_is_said(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(kind, tmp_path)
    first = pack(folder, Packing(DECODERS[kind]), tmp_path / "cache", show=False)
    assert not capsys.readouterr().err
    one, other, *_ = sorted(path for path in folder.iterdir())
    names = sorted(one.iterdir())
    suffix = names[0].suffix
    names[1].write_bytes(next(other.iterdir()).read_bytes())
    names[2].unlink()
    write_tree(other, {f"new{suffix}": names[0].read_bytes(), f"newer{suffix}": names[0].read_bytes()})
    again = pack(folder, Packing(DECODERS[kind]), tmp_path / "cache", show=False)
    assert again.content != first.content
    said = capsys.readouterr().err
    assert f"{folder.name} has changed since it was last packed (2 added, 1 removed, 1 replaced)" in said
    damaged = next((tmp_path / "cache" / kind).glob("*.npy"))
    damaged.write_bytes(damaged.read_bytes()[:50])
    names[0].unlink()
    pack(folder, Packing(DECODERS[kind]), tmp_path / "cache", show=False)
    assert not capsys.readouterr().err


def test_equal_pictures_with_other_captions_have_one_order(tmp_path: Path) -> None:
    """In an order of the captions, not of the files' names."""
    one, other = next(iter(files().values())), {f"{i}.txt": f"text {i % 3}".encode() for i in range(9)}
    content = {f"{i}.png": one for i in range(9)} | other
    first = pack(write_tree(tmp_path / "a", content), Packing(PictureDecoder(8), test_share=0), tmp_path / "cache")
    turned = {f"{8 - int(name[0])}{name[1:]}": data for name, data in content.items()}
    again = pack(write_tree(tmp_path / "b", turned), Packing(PictureDecoder(8), test_share=0), tmp_path / "cache")
    assert first.content == again.content
    captions = PackedSource(first, "train").take(torch.arange(9)).entries["caption"]
    assert captions == [f"text {i // 3}" for i in range(9)]


def test_a_million_members_are_not_compared_with_one_another() -> None:
    """What is done with names grows as their number does: each is hashed a few times."""
    hashed = []

    class Name(str):
        def __hash__(self) -> int:
            hashed.append(None)
            return super().__hash__()

    names = [Name(f"{i % 10}/{i}.png") for i in range(500)]
    described([*names, *(Name(f"{i % 10}/{i}.txt") for i in range(500))], lambda name: b"text")
    assert len(hashed) < 10 * len(names)


@given(st.lists(st.text("a0129/_", max_size=6), max_size=8))
def test_numbers_in_names_are_sorted_as_numbers(names: list[str]) -> None:
    def parts(name: str) -> list[tuple[int, int, str]]:
        found = [part for part in re.split("([0-9]+)", name) if part]
        return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in found]

    assert sorted(names, key=natural) == sorted(names, key=parts)


def test_a_disk_that_is_too_small_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match=r"packing needs 0\.0 GB below .*choose another folder with paths\.cache="):
        pack(as_folder(tmp_path), Packing(PictureDecoder(8)), tmp_path / "cache", show=False)


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
    found = pack(
        path, Packing(PictureDecoder(16, crop="random", smallest_crop=smallest_crop), test_share=0.3), cache, show=False
    )
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
    assert cropped(folder, tmp_path / "cache2").collection.content == first.collection.content
    assert cropped(folder, tmp_path / "cache", smallest_crop=0.9).collection.content != first.collection.content
    with Image.open(folder / "0.png") as picture:
        pixels = np.array(picture)
    # A corner that the packed crop need not show.
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        changed = pixels.copy()
        changed[corner] = 255
        Image.fromarray(changed).save(folder / "0.png")
        assert cropped(folder, tmp_path / "cache").collection.content != first.collection.content
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
    found = pack(as_folder(tmp_path), Packing(PictureDecoder(8)), tmp_path / "cache", show=False)
    source = PackedSource(found, "train")
    numbers = torch.tensor([7, 0, 7])
    some = source.take(numbers)
    assert torch.equal(some.x, source.mapped().x[numbers])
    assert torch.equal(some.entries["label"], source.labels[numbers])  # pyright: ignore[reportArgumentType]
