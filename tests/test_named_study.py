"""Named studies through the command line: what they leave, what is refused before a trial, what counts as best."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, create_trial

import forked_runs
from diffsweep.sweep.search.summary import balance
from tiny import TINY

ROOT = Path(__file__).parent.parent
PATIENCE = 300.0
SEARCH = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra/sweeper/sampler=random"]


def search(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    overrides = [*TINY, "training.steps=20", "sampler=ddim,heun", f"paths.runs={folder}/runs", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return forked_runs.run([str(ROOT / "train.py"), *SEARCH, *overrides], folder, environment, PATIENCE)


@pytest.mark.slow
def test_a_named_study_ends_as_a_sweep_does(tmp_path: Path) -> None:
    """With a table and a report in its own folder, and a number for every objective that is best at something."""
    several = ("hydra.sweeper.objective=[w2_points,nfe]", "hydra.sweeper.direction=[minimize,minimize]")
    done = search(tmp_path, "hydra.sweeper.study_name=mine", *several)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/sweeps/mine"
    assert (folder / "table.csv").read_text().count("\n") >= 2
    assert "<html" in (folder / "report.html").read_text()
    assert [path.name for path in (tmp_path / "runs/sweeps").iterdir()] == ["mine"]
    assert "table.csv" in done.stdout
    for name in ("balanced ", "best w2_points ", "best nfe "):
        assert f"\n{name}" in done.stdout, done.stdout


def test_a_mistyped_objective_is_refused_before_a_trial_and_keeps_no_name(tmp_path: Path) -> None:
    done = search(tmp_path, "hydra.sweeper.study_name=mine", "hydra.sweeper.objective=w2_point")
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("hydra.sweeper.objective=w2_point is no number of a result: did you mean w2_points")
    assert not (tmp_path / "runs").exists()


def trial(*values: float) -> FrozenTrial:
    return create_trial(values=list(values))


def test_the_best_of_several_objectives_considers_all_of_them() -> None:
    front = [trial(0.0, 100.0), trial(0.3, 20.0), trial(1.0, 0.0)]
    assert next(one.values for one in balance(front, ("minimize", "minimize"))) == [0.3, 20.0]
    # The larger the better: what was worst is best.
    assert next(one.values for one in balance(front, ("minimize", "maximize"))) == [0.0, 100.0]
    assert balance(front[:1], ("minimize", "minimize")) == front[:1]
