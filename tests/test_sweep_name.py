"""Names of sweeps, `sweep.name`: what they name, when one is gone on with, and what is refused before anything runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import forked_runs
from diffsweep.sweep.plan.jobs import LaunchRecord
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.store.process import Process
from tiny import TINY

ROOT = Path(__file__).parent.parent
WORDS = [*TINY, "training.steps=20", "hydra.launcher.jobs=1"]


def train(folder: Path, *words: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = forked_runs.run([str(ROOT / "train.py"), *WORDS, *words], folder, environment, 300)
    assert done.returncode == expect, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep of the name `solvers`: one training, two cells."""
    folder = tmp_path_factory.mktemp("named")
    done = train(folder, "-m", "sweep.name=solvers", "sampler=ddim,heun")
    assert "sweep solvers: 2 cells of 1 training" in done.stderr
    # What comes next is another run, and no part of this sweep.
    _, _, commands = done.stdout.partition("\nnext:\n")
    assert "sampler.nfe=" in commands
    assert "sweep.name" not in commands
    return folder


def test_a_name_is_that_of_the_folder_and_of_the_report(named: Path) -> None:
    (sweep,) = (named / "runs/sweeps").iterdir()
    assert sweep.name == "solvers"
    page = (sweep / "report.html").read_text()
    assert "solvers" in page.partition("<title>")[2].partition("</title>")[0]
    status = forked_runs.run(["-m", "diffsweep", "status", "solvers"], named, os.environ, 100)
    assert (status.returncode, "solvers" in status.stdout) == (0, True)


def test_a_name_trains_no_model_anew(named: Path) -> None:
    said = train(named, "-m", "sampler=ddim,heun", "mode=plan").stderr
    assert "2 done already, 0 to do" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sampler=ddim,euler"], "sweep.name=solvers is a sweep with 1 cell that this one has not"),
        # That the second cell cannot be is found when the plan is there already.
        (["sampler=ddim,heun", "sampler.nfe=20,0"], "sampler.nfe=0"),
        (["sampler=ddim,heun", "hydra/sweeper=optuna"], "solvers is the name of a sweep"),
    ],
)
def test_what_is_refused_leaves_the_sweep_of_that_name_as_it_was(named: Path, words: list[str], message: str) -> None:
    folder = named / "runs/sweeps/solvers"
    before = {path: path.read_bytes() for path in folder.rglob("*.json")}
    done = train(named, "-m", "sweep.name=solvers", *words, expect=2)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert {path: path.read_bytes() for path in folder.rglob("*.json")} == before


def test_a_sweep_of_the_same_name_may_have_more_cells(named: Path) -> None:
    said = train(named, "-m", "sweep.name=more", "sampler=ddim").stderr
    assert "1 done already" in said
    train(named, "-m", "sweep.name=more", "sampler=ddim,heun,euler")
    plan = Plan.read(named / "runs/sweeps/more")
    assert (len(plan.cells), len(plan.fits)) == (3, 1)
    rows = (named / "runs/sweeps/more/table.csv").read_text().splitlines()
    assert len(rows) == 1 + 3


def test_while_a_sweep_is_run_its_name_is_taken(named: Path) -> None:
    folder = named / "runs/sweeps/taken"
    train(named, "-m", "sweep.name=taken", "sampler=ddim")
    LaunchRecord("local", (), Process.current()).write(folder)
    said = train(named, "-m", "sweep.name=taken", "sampler=ddim,heun", expect=2).stderr
    assert "sweep.name=taken is being run by" in said
    assert "diffsweep status taken" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m", "sweep.name=a/b"], "sweep.name=a/b must be letters, digits and . _ + - only"),
        (["-m", "sweep.name=../b"], "sweep.name=../b must be letters"),
        (["-m", "sweep.name=true"], "sweep.name=true must be letters"),
        (["-m", "sweep.name=[a]"], "sweep.name=['a'] must be letters"),
        (["-m", "sweep.name=last"], "sweep.name=last means the newest sweep in commands"),
        (["-m", "sweep.name=a,b"], "sweep.name=a,b: a sweep has one name"),
        (["sweep.name=a"], "sweep.name=a names a sweep, and this is a single run: add -m"),
        (["-m", "+sweep=few_steps"], "sweep is there already: write sweep=VALUE"),
        (["-m", "sweep=few_steps"], "sweep=few_steps is no name: sweep.name=NAME names a sweep, and +sweeps=NAME"),
        (["-m", "sweep.nmae=a"], "there is no key sweep.nmae: did you mean sweep.name"),
    ],
)
def test_what_cannot_be_a_name_is_refused_in_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    done = train(tmp_path, "sampler=ddim", *words, expect=2)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_search_has_the_name_too(tmp_path: Path) -> None:
    search = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "hydra/sweeper/sampler=random"]
    train(tmp_path, *search, "sweep.name=night", "sampler=ddim,heun")
    assert [path.name for path in (tmp_path / "runs/sweeps").iterdir()] == ["night"]
    assert (tmp_path / "runs/sweeps/night/report.html").exists()
    said = train(tmp_path, "-m", "sweep.name=night", "sampler=ddim", expect=2).stderr
    assert "sweep.name=night is the name of a search" in said
