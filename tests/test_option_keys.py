"""Keys that only some of the swept options know: the cells are those of the single runs that a user would say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose as compose_one
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.types import HydraContext

import forked_runs
from diffsweep.sweep.search.study import known_points
from diffsweep.sweep.store.record import Run
from finished_runs import CONF
from hydra_plugins.diffsweep_optuna import OptunaSweeper
from test_compose import loading
from tiny import TINY

ROOT = Path(__file__).parents[1]

GUIDED = ["guidance=none,cfg,rescaled", "guidance.scale=2,4", "guidance/output=clip", "guidance.phi=0.3"]
SAID = [
    "note: guidance.scale=2,4 applies to guidance=cfg,rescaled, not to guidance=none",
    "note: guidance.phi=0.3 applies to guidance=rescaled, not to guidance=none,cfg",
]
SINGLE = [
    ["guidance=none", "guidance/output=clip"],
    *(["guidance=cfg", f"guidance.scale={scale}", "guidance/output=clip"] for scale in (2, 4)),
    *(["guidance=rescaled", f"guidance.scale={scale}", "guidance/output=clip", "guidance.phi=0.3"] for scale in (2, 4)),
]
STUDY = """
    # @package _global_
    hydra:
      sweeper:
        params:
          guidance: none,cfg,rescaled
          guidance.scale: 2,4
          guidance/output: clip
          guidance.phi: 0.3
    """


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    if not (folder / "conf").exists():
        (folder / "conf").symlink_to(CONF)
    return forked_runs.run([str(ROOT / "train.py"), *words], folder, os.environ, 300)


@pytest.fixture(scope="module")
def alone() -> list[tuple[str, str]]:
    """Fit and cell of each single run."""
    found = []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for words in SINGLE:
            run = Run.of(compose_one("config", overrides=["condition=label", *words]))
            found.append((run.fit.signature, run.cell.signature))
    assert len(set(found)) == 5
    return found


@pytest.mark.parametrize("launcher", ["local", "slurm"])
@pytest.mark.parametrize("named", [False, True], ids=["typed", "named"])
def test_the_cells_of_a_sweep_are_those_of_single_runs(
    alone: list[tuple[str, str]], tmp_path: Path, launcher: str, named: bool
) -> None:
    study = tmp_path / "own" / "sweeps" / "study.yaml"
    study.parent.mkdir(parents=True)
    study.write_text(textwrap.dedent(STUDY))
    words = [f"--config-dir={study.parents[1]}", "+sweeps=study"] if named else GUIDED
    done = python(tmp_path, "-m", *words, "condition=label", f"hydra/launcher={launcher}", "mode=read_only")
    assert done.returncode == 1, done.stderr
    plan = json.loads(next(tmp_path.glob("runs/sweeps/*/plan.json")).read_text())
    assert list(dict.fromkeys((task["fit"], task["cell"]) for task in plan["tasks"])) == alone
    said = {word for words in SINGLE for word in words}
    assert {tuple(sorted(said & set(task["overrides"]))) for task in plan["tasks"]} == {
        tuple(sorted(one)) for one in SINGLE
    }
    assert [line for line in done.stderr.splitlines() if line.startswith("note: ")] == SAID


def test_params_of_the_sweeper_on_the_command_line(alone: list[tuple[str, str]], tmp_path: Path) -> None:
    params = "{guidance: 'none,cfg,rescaled', guidance.scale: '2,4', guidance/output: clip, guidance.phi: 0.3}"
    done = python(tmp_path, "-m", f"hydra.sweeper.params={params}", "condition=label", "mode=read_only")
    plan = json.loads(next(tmp_path.glob("runs/sweeps/*/plan.json")).read_text())
    assert list(dict.fromkeys((task["fit"], task["cell"]) for task in plan["tasks"])) == alone, done.stderr


def test_a_search_tries_what_single_runs_are(
    alone: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with loading(CONF, "hydra/sweeper=optuna") as (loader, master):
        sweeper = OptunaSweeper(sampler="grid", n_trials=6)
        context = HydraContext(config_loader=loader, callbacks=Callbacks())
        sweeper.setup(hydra_context=context, task_function=lambda cfg: None, config=master)
        search = sweeper._search([*GUIDED, "condition=label"])
        search = replace(search, composition=replace(search.composition, configs=(str(CONF),)))
        signed = [search.signed(point) for point in known_points(search)]
    assert {(one.fit, one.cell) for one in signed} == set(alone)
    assert sorted(["condition=label", *SINGLE[0]]) in [sorted(one.overrides) for one in signed]


def test_what_no_swept_option_knows_is_refused_and_so_is_it_in_a_single_run(tmp_path: Path) -> None:
    for words in (
        ["-m", "guidance=none,cfg", "guidance.scal=2"],
        ["-m", "guidance=none,cfg", "sampler.solver.nothing=2"],
        ["-m", "guidance=none", "guidance.scale=2,4"],
        ["guidance=none", "guidance.scale=2"],
        ["-m", "hydra/sweeper=optuna", "guidance=none,cfg", "guidance.scal=interval(1,2)"],
    ):
        done = python(tmp_path, *words, "condition=label")
        key = words[-1].partition("=")[0]
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert done.stderr.startswith(f"there is no key {key}"), done.stderr
    assert not list(tmp_path.glob("runs/sweeps/*"))


def test_another_training_is_named_for_the_options_that_want_one(tmp_path: Path) -> None:
    tiny = [*TINY, "training.steps=20", "sampler.nfe=4", "condition=label"]
    done = python(tmp_path, *tiny)
    assert done.returncode == 0, done.stderr
    (fit,) = (path.name for path in tmp_path.glob("runs/fits/*"))
    done = python(tmp_path, "-m", *tiny, "guidance=none,autoguidance", f"guidance.weak={fit}")
    assert done.returncode == 0, done.stderr
    assert f"note: guidance.weak={fit} applies to guidance=autoguidance, not to guidance=none" in done.stderr
    assert "2 runs of 1 training" in done.stdout
    words = ["diffuser=v,consistency_distillation", f"diffuser.teacher={fit}", "mode=plan"]
    done = python(tmp_path, "-m", *tiny, *words)
    assert done.returncode == 0, done.stderr
    said = f"note: diffuser.teacher={fit} applies to diffuser=consistency_distillation, not to diffuser=v"
    assert said in done.stderr
    assert re.search(r"2 cells of 2 trainings; 1 done already, 1 to do", done.stderr)


def test_every_trial_is_checked_before_a_search_begins(tmp_path: Path) -> None:
    search = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.study_name=night"]
    for words, said in (
        (["sampler.nfe=range(0,20)"], "sampler.nfe=0 must be a whole number, 1 or more"),
        (["dataset=mixture,digits", "backbone=mlp"], "dataset=digits"),
        (
            ["condition=label", "condition.label.drop=interval(0.1,1.5)"],
            "condition.label.drop=1.5 must be at least 0 and below 1",
        ),
        (["training.batch_size=8,16", "training.decay=cosine,quick"], "training.decay=quick is unknown"),
    ):
        done = python(tmp_path, *search, *TINY, *words)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert said in done.stderr
    assert not list(tmp_path.glob("runs/sweeps/*"))
