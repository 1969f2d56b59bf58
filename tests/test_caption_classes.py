"""The class of what a sample was asked for by a caption: accuracy, and the distance of each class."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

import forked_runs
import text_encoders
from diffsweep.data.examples import Dataset, Examples, Split
from diffsweep.data.source import in_memory
from diffsweep.runs.instantiate import make, make_conditioners
from diffsweep.scoring.requests import Requests
from diffsweep.settings import SampleChoice

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")


def composed(*words: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", list(words))


def requests(*words: str, prompts: tuple[str, ...] = (), folder: Path) -> Requests:
    cfg = composed("dataset=digits_captions", f"paths.runs={folder}", *words)
    return Requests(make_conditioners(cfg), make(cfg, "dataset"), SampleChoice(prompts=prompts))


def test_a_caption_has_the_class_of_its_held_out_example(tmp_path: Path) -> None:
    told = requests(*text_encoders.words(), folder=tmp_path)
    held_out = in_memory(told.dataset.load("test"), CPU).labels
    found = told.classes(len(held_out) + 5)
    assert found is not None
    assert torch.equal(found, torch.cat([held_out, held_out[:5]]))
    # As everything that is read from one.
    edges = requests("condition=edges", folder=tmp_path).classes(40)
    assert edges is not None
    assert torch.equal(edges, held_out[:40])
    assert requests("condition=none", folder=tmp_path).classes(4) is None


def test_a_prompt_has_the_class_of_examples_with_that_caption(tmp_path: Path) -> None:
    def asked(*prompts: str) -> list[int] | None:
        found = requests(*text_encoders.words(), prompts=prompts, folder=tmp_path).classes(5)
        return None if found is None else found.tolist()

    assert asked("a handwritten  seven", "zero") == [7, 0, 7, 0, 7]
    assert asked("the digit three") == [3] * 5
    # No caption of the data.
    assert asked("a handwritten seven", "a red heart") is None
    # Whose edges the samples are asked for besides is another class.
    both = requests("condition=[text,edges]", *text_encoders.words()[1:], prompts=("zero",), folder=tmp_path)
    assert both.classes(5) is None


class _TwoMeanings(Dataset):
    """Four examples of two classes that share a caption."""

    name = "two_meanings"

    def load(self, split: Split) -> Examples:
        x = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        return Examples(x, torch.tensor([0, 1, 1, 0]), {"caption": ["bank", "bank", "river", "money"]})


def test_a_caption_of_several_classes_has_none(tmp_path: Path) -> None:
    cfg = composed("dataset=digits_captions", f"paths.runs={tmp_path}", *text_encoders.words())
    dataset = _TwoMeanings((1, 8, 8), 2, 1.0)

    def asked(*prompts: str) -> list[int] | None:
        found = Requests(make_conditioners(cfg), dataset, SampleChoice(prompts=prompts)).classes(4)
        return None if found is None else found.tolist()

    assert asked("river", "money") == [1, 0, 1, 0]
    assert asked("river", "bank") is None
    unlabelled = _TwoMeanings((1, 8, 8), 0, 1.0)
    assert Requests(make_conditioners(cfg), unlabelled, SampleChoice(prompts=("river",))).classes(4) is None


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """From the definition."""
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    # The trace of the square root of a product is the sum of the roots of its eigenvalues.
    roots = np.sqrt(np.linalg.eigvals(a @ b).real.clip(min=0))
    return float(np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a + b) - 2 * roots.sum())


@pytest.mark.slow
def test_a_cell_of_captions_has_accuracy_and_the_distance_of_each_class(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = ["training.steps=60", "training.warmup=0", "backbone.width=8", "trainer.progress=false", "sampler.nfe=4"]
    words += ["dataset=digits_captions", "evaluation.samples=160", *text_encoders.words()]
    done = forked_runs.run([str(ROOT / "train.py"), *words], tmp_path, environment, timeout=300)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("runs/fits/*/cells/*/result.json")
    result = json.loads(file.read_text())
    again = ["-m", "diffsweep", "sample", file.parent.name, "-n", "160", "--device", "cpu", "--out", "drawn"]
    done = forked_runs.run(again, tmp_path, environment, timeout=300)
    assert done.returncode == 0, done.stderr
    x = np.load(next((tmp_path / "drawn").rglob("*.npz")))["arr_0"]
    samples = torch.from_numpy(x).movedim(-1, 1) if x.ndim == 4 else torch.from_numpy(x)[:, None]
    cfg = composed("dataset=digits_captions")
    extractor, dataset = make(cfg, "evaluation.extractor"), make(cfg, "dataset")
    test, train = (in_memory(dataset.load(split), CPU) for split in ("test", "train"))
    seen, real = extractor(samples), extractor(train.x)["features"].double().numpy()
    labels, asked = train.labels.numpy(), test.labels[:160].numpy()
    right = (seen["logits"].argmax(1).numpy() == asked).mean()
    assert result["accuracy_digits"] == pytest.approx(float(right))
    assert result["accuracy_digits_floor"] > 0.9
    features = seen["features"].double().numpy()
    of_each = [frechet(features[asked == label], real[labels == label]) for label in range(10)]
    for label, value in enumerate(of_each):
        assert result[f"fd_digits_class_{label}"] == pytest.approx(value, rel=1e-3)
    assert result["fd_digits_within"] == pytest.approx(np.mean(of_each), rel=1e-3)
    assert result["fd_digits_within"] > 2 * result["fd_digits_within_floor"]
