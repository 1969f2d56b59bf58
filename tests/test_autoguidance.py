"""Autoguidance by the model itself at an earlier step, by the command line: `guidance=autoguidance_self`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import forked_runs
from diffsweep.sweep.store.override_words import split
from diffsweep.sweep.store.signature import Signer
from test_conf import composed
from tiny import TINY

ROOT = Path(__file__).parent.parent
WORDS = [*TINY, "training.steps=60", "training.keep=[10,0.5]", "sampler=ddim", "sampler.nfe=5"]
SELF = ["guidance=autoguidance_self"]


def python(folder: Path, *words: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = forked_runs.run(list(words), folder, {**os.environ, "OMP_NUM_THREADS": "1"}, 300)
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def train(folder: Path, *words: str, expect: int = 0) -> str:
    done = python(folder, str(ROOT / "train.py"), *WORDS, *words, expect=expect)
    return done.stdout + done.stderr


def values(folder: Path) -> dict[str, float]:
    """What each cell asked of its guidance, and its main number."""
    found = {}
    for path in folder.glob("runs/fits/*/cells/*/result.json"):
        result = json.loads(path.read_text())
        asked = [word for word in split(result["overrides"]) if word.startswith("guidance.")]
        found[" ".join(asked)] = result["w2_points"]
    return found


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One training, sampled alone and guided by itself after 10 and after 30 steps."""
    folder = tmp_path_factory.mktemp("guided")
    train(folder, "-m", "guidance=none")
    said = train(folder, "-m", *SELF, "guidance.step=10,30")
    assert "sweep" in said
    assert len(list(folder.glob("runs/fits/*"))) == 1
    return folder


def test_the_steps_are_cells_of_one_training_and_differ(guided: Path) -> None:
    found = values(guided)
    assert len(found) == 3
    assert len(set(found.values())) == 3


def test_the_model_itself_is_the_fit_of_its_name(guided: Path) -> None:
    (fit,) = guided.glob("runs/fits/*")
    train(guided, "guidance=autoguidance", f"guidance.weak='{fit.name}'", "guidance.step=10", "guidance.scale=1.5")
    found = values(guided)
    by_name = next(value for asked, value in found.items() if fit.name in asked)
    assert by_name == next(value for asked, value in found.items() if asked == "guidance.step=10")
    train(guided, "guidance=autoguidance", f"guidance.weak='{fit.name}'", "guidance.scale=3")
    # A model that is guided away from itself goes nowhere.
    assert values(guided)[f"guidance.weak='{fit.name}' guidance.scale=3"] == pytest.approx(found[""], rel=1e-4)


def test_its_cells_are_sampled_later(guided: Path) -> None:
    cell = next(
        path.parent.name
        for path in guided.glob("runs/fits/*/cells/*/result.json")
        if "guidance.step=30" in json.loads(path.read_text())["overrides"]
    )
    python(guided, "-m", "diffsweep", "sample", cell, "-n", "8", "--out", str(guided / "drawn"))
    assert list((guided / "drawn").iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["guidance=autoguidance_self", "training.keep=[]"],
            "training.keep=[] keeps no earlier step to guide away from",
        ),
        ([*SELF, "guidance.step=20"], "guidance.step=20 is no step that the training keeps: set training.keep="),
        ([*SELF, "guidance.step=60"], "guidance.step=60 must be an earlier step than 60"),
        ([*SELF, "guidance.step=30", "weights.step=10"], "guidance.step=30 must be an earlier step than 10"),
        ([*SELF, "guidance.step=0"], "guidance.step=0 must be"),
        (["guidance=autoguidance"], "guidance.weak=null must name a finished fit of the same data"),
    ],
)
def test_what_cannot_be_is_refused_before_the_training(tmp_path: Path, words: list[str], message: str) -> None:
    for mode in ([], ["-m"]):
        said = train(tmp_path, *mode, *words, expect=2)
        assert message in said
        assert len(said.strip().splitlines()) == 1
        assert not list(tmp_path.glob("runs/fits/*"))


def test_a_cell_of_before_there_were_steps_has_the_name_that_it_had() -> None:
    words = ["guidance=autoguidance", "guidance.weak=0123456789ab"]
    before = composed(*words)
    OmegaConf.set_struct(before, False)
    del before.guidance.step
    assert Signer().sign(composed(*words)) == Signer().sign(before)
    assert Signer().sign(composed(*words, "guidance.step=3")) != Signer().sign(before)
