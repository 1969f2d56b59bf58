"""`trainer=debug` compares with few real examples, so that it takes seconds; its results have a table of their own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import forked_runs
from diffsweep import commands
from diffsweep.data.digits import Digits
from diffsweep.scoring.reference_subset import reference_subset
from finished_runs import CONF, DIGITS

ROOT = Path(__file__).parents[1]
SMALL = [*DIGITS, "training.steps=20", "evaluation.samples=32"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one run as for debugging, and the same with all real examples."""
    project = tmp_path_factory.mktemp("project")
    (project / "conf").symlink_to(CONF)
    for words in (["trainer=debug"], ["trainer=debug", "evaluation.reference_samples=null"]):
        done = forked_runs.run([str(ROOT / "train.py"), *SMALL, *words], project, os.environ, timeout=100)
        assert done.returncode == 0, done.stderr
    return project


def results(project: Path) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in project.glob("runs/fits/*/cells/*/result.json")]
    return sorted(found, key=lambda one: one["reference_samples"])


def test_debug_looks_at_a_few_real_examples(project: Path) -> None:
    few, all_ = results(project)
    assert few["fit"] == all_["fit"]
    assert (few["reference_samples"], all_["reference_samples"]) == (256, len(Digits().load("train")))
    assert few["reference_digest"] != all_["reference_digest"]


def test_a_few_real_examples_are_no_other_data_than_the_model_was_trained_on(project: Path) -> None:
    assert not any("other data" in (one.get("careful") or one.get("note") or "") for one in results(project))


def test_results_of_both_are_never_ranked_together(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    assert commands.main(["results"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("2 tables, for numbers of different reference samples (256 and ")
    assert out.count("1 run of 1 training") == 2


def test_the_choice_is_always_the_same_and_its_own_data() -> None:
    real = Digits().load("train")
    few, again, more = (reference_subset(real, most) for most in (100, 100, 101))
    assert few.digest() == again.digest() != more.digest() != real.digest()
    numbers = torch.arange(100)
    assert torch.equal(few.take(numbers).x, again.take(numbers).x)
    kept = {tuple(one.flatten().tolist()) for one in few.take(numbers).x}
    assert len(few) == 100
    assert kept <= {tuple(one.flatten().tolist()) for one in real.take(torch.arange(len(real))).x}
    assert reference_subset(real, None) is real
    assert reference_subset(real, 10**6) is real


def test_a_number_that_is_no_reference_is_refused(project: Path) -> None:
    for value in ("1", "abc", "0.5"):
        words = [*SMALL, f"evaluation.reference_samples={value}"]
        done = forked_runs.run([str(ROOT / "train.py"), *words], project, os.environ, timeout=100)
        assert done.returncode == 2
        assert done.stderr.startswith(f"evaluation.reference_samples={value} must be"), done.stderr
