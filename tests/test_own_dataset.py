"""A dataset of the user's own, with no extractor named: the class and the YAML that docs/data.md shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import forked_runs
from test_custom import environment

ROOT = Path(__file__).parent.parent
DOCS = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
TINY = [
    "dataset=rings",
    "backbone=mlp",
    "backbone.width=8",
    "backbone.depth=1",
    "trainer=debug",
    "training.steps=5",
    "training.warmup=0",
]


def block(language: str, has: str) -> str:
    """The code block of the docs in which these words are."""
    (found,) = (text for text in re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL) if has in text)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rings.py").write_text(block("python", "class Rings"))
    write(tmp_path, "dataset", block("yaml", "rings.Rings"))
    return tmp_path


def write(folder: Path, group: str, text: str) -> None:
    path = folder / "mine" / group / "rings.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def train(folder: Path, *words: str) -> Any:
    arguments = [str(ROOT / "train.py"), "--config-dir", "mine", *TINY, *words]
    return forked_runs.run(arguments, folder, environment(), 300)


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("runs/fits/*/cells/*/result.json"))]


def test_own_data_are_measured_by_what_fits_their_kind(folder: Path) -> None:
    done = train(folder)
    assert done.returncode == 0, done.stderr
    (result,) = results(folder)
    assert (result["extractor"], result["metric"]) == ("points", "w2_points")
    assert {"energy_points", "mmd_points", "fd_points"} <= set(result)


def test_a_sweep_over_own_data_may_choose_metrics_and_takes_the_extractor_that_is_there_for_it(folder: Path) -> None:
    done = train(folder, "-m", "sampler=ddim,heun", "metric=[energy]", "validation=curve")
    assert done.returncode == 0, done.stderr
    assert [result["metric"] for result in results(folder)] == ["energy_points"] * 2
    # One for this dataset comes before that of its kind.
    write(folder, "extractor", "# @package _global_\n# Points.\ndefaults: [mixture]\n")
    done = train(folder, "--cfg", "job")
    assert "_target_: diffsweep.evaluation.identity.identity" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["extractor=eficientnet"], "extractor=eficientnet does not exist: did you mean efficientnet?"),
        (["extractor=efficientnet"], "extractor efficientnet_lite0 does not take dataset=rings of shape (2,)"),
    ],
)
def test_an_extractor_that_cannot_be_is_refused_in_one_line(folder: Path, words: list[str], said: str) -> None:
    done = train(folder, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (folder / "runs").exists()


def test_a_number_that_own_data_do_not_have_is_refused_before_a_training(folder: Path) -> None:
    done = train(folder, "condition=number", "condition.number.entry=age")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("condition.number.entry=age names no number of these examples")
    assert "a network of" not in done.stderr
