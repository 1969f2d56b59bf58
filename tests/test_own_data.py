"""Trainings on data of one's own: exact in every format, killed and resumed; and the dataset class of docs/data.md."""

from __future__ import annotations

import json
import os
import random
import re
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

import brake
import forked_runs
from collections_made import FORMATS, digits

ROOT = Path(__file__).parent.parent
PATIENCE = 300
TINY = [
    "training.steps=60",
    "training.batch_size=16",
    "training.flip=true",
    "backbone.width=8",
    "evaluation.samples=8",
    "extractor=digits",
    "trainer.progress=false",
    "trainer.checkpoint_seconds=0.02",
    brake.LOSS,
]


def start(folder: Path, *words: str) -> forked_runs.Run:
    """`python train.py WORD ...` in the folder; it takes its time while there is a file `brake` there."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **brake.environment(folder / "brake")}
    return forked_runs.Run([str(ROOT / "train.py"), *words], folder, environment)


def train(folder: Path, *words: str) -> str:
    """Its standard error at its end, which must be good."""
    process = start(folder, *words)
    try:
        _, stderr = process.communicate(PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0, stderr
    return stderr


def killed(folder: Path, *words: str, checkpoints: int) -> None:
    """Start a training, and kill it after so many checkpoints."""
    (folder / "brake").touch()
    process, seen, end = start(folder, *words), set[int](), time.monotonic() + PATIENCE
    while len(seen) < checkpoints:
        seen |= {path.stat().st_mtime_ns for path in folder.glob("runs/fits/*/checkpoints/last.ckpt")}
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    process.communicate(PATIENCE)
    (folder / "brake").unlink()
    assert not list(folder.glob("runs/fits/*/done.json"))


def weights(folder: Path) -> bytes:
    (path,) = folder.glob("runs/fits/*/checkpoints/ema.safetensors")
    return path.read_bytes()


def loading(resident: float, workers: int, prefetch: int) -> list[str]:
    values = {"resident": resident, "workers": workers, "prefetch": prefetch}
    return [f"trainer.loading.{key}={value}" for key, value in values.items()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Weights of a training on pictures that lie in memory, from the beginning to the end."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train(folder, "dataset=images", "dataset.size=8", f"dataset.path={FORMATS['folder'](folder)}", *TINY)
    return weights(folder)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_trains_the_same_weights_killed_and_resumed(name: str, undisturbed: bytes, tmp_path: Path) -> None:
    """Bit for bit, read ahead by other numbers of threads before and after the kill."""
    draw = random.Random(name)
    words = ["dataset=images", "dataset.size=8", f"dataset.path={FORMATS[name](tmp_path)}", *TINY]
    killed(tmp_path, *words, *loading(0, draw.randint(1, 4), draw.randint(1, 6)), checkpoints=draw.randint(1, 3))
    stderr = train(tmp_path, *words, *loading(0, draw.randint(1, 4), draw.randint(1, 6)))
    assert "going on from its checkpoint" in stderr
    assert weights(tmp_path) == undisturbed


def test_random_crops_train_the_same_weights_killed_and_resumed(tmp_path: Path) -> None:
    places = [tmp_path / "whole", tmp_path / "resumed"]
    for place in places:
        place.mkdir()
    crops = ["dataset.crop=random", "dataset.smallest_crop=0.5"]
    words = ["dataset=images", "dataset.size=8", f"dataset.path={FORMATS['zip'](tmp_path)}", *crops, *TINY]
    train(places[0], *words, *loading(0.25, 1, 1))
    killed(places[1], *words, *loading(0, 3, 2), checkpoints=2)
    train(places[1], *words, *loading(0.25, 2, 5))
    assert weights(places[0]) == weights(places[1])


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / "data.md").read_text(), re.DOTALL)


def test_the_dataset_class_of_the_documentation_trains(tmp_path: Path) -> None:
    """As it stands in docs/data.md, with data where it looks for them."""
    code, config = blocks("python")[0], blocks("yaml")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 26, "short enough to be read"
    (tmp_path / "faces.py").write_text(code)
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "faces.yaml").write_text(config)
    x, labels = digits()
    for split, part in (("train", slice(None, 40)), ("test", slice(40, None))):
        np.save(tmp_path / f"{split}.npy", x[part, None])
        np.save(tmp_path / f"{split}_labels.npy", labels[part])
    words = [word for word in TINY if "steps" not in word]
    words = ["--config-dir=conf", "dataset=faces", "training.steps=3", *words, *loading(0, 2, 2)]
    train(tmp_path, *words)
    (done,) = tmp_path.glob("runs/fits/*/done.json")
    record = json.loads(done.read_text())
    assert (record["data_digest"], record["examples"]) == (
        sha256((tmp_path / "train.npy").read_bytes()).hexdigest(),
        40,
    )
    # Other data under the same name: nothing in the config tells, and the result does.
    np.save(tmp_path / "train.npy", x[:40, None][::-1])
    stderr = train(tmp_path, *words, "sampler=ddim")
    assert "the model was trained on other data" in stderr
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/fits/*/cells/*/result.json")]
    assert sorted("other data" in (result.get("evaluation_note") or "") for result in results) == [False, True]
