"""Every cell of a sweep is checked as a single run is, before anything is started, submitted or left on the disk."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import forked_runs
from diffsweep.sweep.plan.folders import refuse_impossible_folders
from tiny import TINY

ROOT = Path(__file__).parent.parent
PATIENCE = 400

# What is swept, the cell of it that cannot be, and the start of what is said.
CELLS = {
    "a word for a number": (["training.steps=20,abc"], ["training.steps=abc"], "training.steps=abc"),
    "a lone cell": (["training.warmup=x"], ["training.warmup=x"], "training.warmup=x"),
    "no calls": (["sampler.nfe=5,0", "seed=1,2"], ["sampler.nfe=0", "seed=1"], "sampler.nfe=0 seed=1: sampler.nfe=0"),
    "parts that do not fit": (["backbone=mlp,unet"], ["backbone=unet"], "backbone"),
    "a pair of two": (
        ["sampler=ddim,heun", "schedule=cosine,rectified", "sampler/spacing=time,logsnr"],
        ["sampler=heun", "schedule=rectified", "sampler/spacing=time"],
        "sampler=heun schedule=rectified sampler/spacing=time: Heun's method cannot start",
    ),
    "a condition and a guidance": (
        ["condition=label,none", "guidance=none,cfg"],
        ["condition=none", "guidance=cfg"],
        "condition=none guidance=cfg: this guidance compares",
    ),
    "a number that the data do not have": (
        ["condition=number", "condition.number.entry=label,age"],
        ["condition=number", "condition.number.entry=age"],
        "condition.number.entry=age names no number of these examples: choose label",
    ),
    "a setting of a metric": (
        ["metric=[neighbours]", "evaluation.metrics.neighbours.k=3,0"],
        ["metric=[neighbours]", "evaluation.metrics.neighbours.k=0"],
        "",
    ),
    "labels that are not there": (["dataset=moons", "metric=[accuracy]"], ["dataset=moons", "metric=[accuracy]"], ""),
    "a folder that is a file": (["paths.cache=FILE", "seed=1,2"], ["paths.cache=FILE", "seed=1"], "seed=1: paths.cach"),
}
REST = [word for word in TINY if not word.startswith(("dataset.size", "backbone.width", "backbone.depth"))]


def said_by(folder: Path, *words: str) -> str:
    """The one line of a command that is refused and leaves nothing."""
    file = folder / "file"
    file.touch()
    typed = [str(ROOT / "train.py"), *REST, *(word.replace("FILE", str(file)) for word in words)]
    done = forked_runs.run(typed, folder, {**os.environ, "OMP_NUM_THREADS": "1"}, PATIENCE)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert sorted(folder.iterdir()) == [file]
    return done.stderr.strip()


@pytest.mark.parametrize("launcher", ["local", "slurm", "plan"])
@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_that_a_single_run_refuses_is_refused_in_every_sweep(tmp_path: Path, kind: str, launcher: str) -> None:
    swept, cell, start = CELLS[kind]
    how = "mode=plan" if launcher == "plan" else f"hydra/launcher={launcher}"
    said = said_by(tmp_path, "-m", *swept, how)
    assert said.startswith(start), said
    assert "resume" not in said
    if launcher == "local":
        assert said_by(tmp_path, *cell) in said


def test_a_sweep_that_is_finished_is_not_checked_and_a_fit_that_it_trains_itself_is_waited_for(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    typed = [str(ROOT / "train.py"), *TINY, "training.steps=20", "-m", "sampler.nfe=4,5"]
    assert forked_runs.run(typed, tmp_path, environment, PATIENCE).returncode == 0
    (fit,) = (path.name for path in tmp_path.glob("runs/fits/*"))
    plan = [*typed[:-2], "-m", "sampler=consistency", "diffuser=consistency_distillation", "mode=plan"]
    planned = forked_runs.run([*plan, f"diffuser.teacher={fit}"], tmp_path, environment, PATIENCE)
    assert planned.returncode == 0, planned.stderr
    unknown = forked_runs.run([*plan, "diffuser.teacher=000000000000"], tmp_path, environment, PATIENCE)
    assert unknown.returncode == 2
    assert re.match("diffuser.teacher=000000000000", unknown.stderr)


def test_a_sweep_goes_to_its_cells(tmp_path: Path) -> None:
    said = said_by(tmp_path, "-m", "sampler.nfe=4,5", "stage=fit")
    assert said.endswith("stage=fit is how far a single run goes, and a sweep goes to its cells: leave it out")


def test_a_folder_that_can_be_made_is_none_to_refuse(tmp_path: Path) -> None:
    refuse_impossible_folders({"runs": str(tmp_path / "a" / "b"), "cache": str(tmp_path), "data": "/nowhere/yet"})
    for value, says in (
        (None, "paths.cache=null must name"),
        (" ", "must name a folder"),
        (3, "paths.cache=3 must name"),
    ):
        with pytest.raises(ValueError, match=says):
            refuse_impossible_folders({"runs": "runs", "cache": value, "data": "data"})
