"""A user's own solver, schedule and objective: files of the user's folder, used from the command line as they are."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import forked_runs
from processes import PROGRAMS

ROOT = Path(__file__).parent.parent

YAML = {
    "sampler": """
defaults:
  - spacing: karras
  - noise: none

_target_: diffsweep.diffusion.Sampler
solver:
  _target_: {module}.Ralston
nfe: 9
""",
    "schedule": "_target_: {module}.Steady\nhigh: 10.0\nlow: -8.0\n",
    "diffuser": "_target_: {module}.Absolute\n",
}


@dataclass(frozen=True)
class Mistake:
    """An option of `group` whose class no longer fits, and a pattern of the line that says so.

    `before` of the class's source has become `after`; without it the file is gone.
    """

    group: str
    said: str
    before: str = ""
    after: str = ""

    @property
    def source(self) -> str | None:
        text = SOURCES[self.group]
        assert self.before in text
        return text.replace(self.before, self.after) if self.before else None


# What a user has written, by the group whose option it is.
SOURCES = {
    group: (PROGRAMS / f"{name}.py").read_text()
    for group, name in (("sampler", "ralston"), ("schedule", "steady"), ("diffuser", "absolute"))
}
MISTAKES = {
    "gone": Mistake("sampler", "sampler.solver._target_=gone.Ralston cannot be loaded: .*No module named 'gone'"),
    "renamed": Mistake("sampler", "renamed.Ralston cannot be loaded", "class Ralston", "class Other"),
    "broken": Mistake("sampler", "broken.Ralston.*broken.py, line", "class Ralston:", "class Ralston"),
    "aimless": Mistake("sampler", "has no attribute 'aim'", "def aim", "def goal"),
    "costless": Mistake("sampler", "has no attribute 'nfe'", "def nfe", "def cost"),
    "forgetful": Mistake("sampler", "aim.* takes 5 positional arguments", ", memory: Any", ""),
    "narrow": Mistake(
        "schedule", "Steady: did you mean schedule.high", "high: float = 10.0, low: float = -8.0", "high"
    ),
    "oneway": Mistake("schedule", "schedule: .*abstract.* inverse", "def inverse", "def time_of"),
    "drawless": Mistake("diffuser", "diffuser: .*abstract.* draw", "def draw", "def drawn"),
}


def environment() -> dict[str, str]:
    hidden = ("HYDRA_FULL_ERROR", "PYTHONPATH")
    return {key: value for key, value in os.environ.items() if key not in hidden}


def arguments(*words: str) -> list[str]:
    """Of Python, for a run in a folder whose modules are findable by nothing but lying there."""
    return [str(ROOT / "train.py"), "--config-dir", "mine", *words]


def train(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return forked_runs.run(arguments(*words), folder, environment(), 300)


def option(folder: Path, group: str, name: str, text: str) -> None:
    path = folder / "mine" / group / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def own(folder: Path, group: str, name: str, code: str | None) -> None:
    """The group's option of this name, whose class is in the folder's module of the same name."""
    if code is not None:
        (folder / f"{name}.py").write_text(code)
    option(folder, group, name, YAML[group].format(module=name))


TINY = ["dataset=moons", "backbone=mlp", "backbone.width=8", "backbone.depth=1", "trainer=debug", "training.steps=5"]


@pytest.mark.slow
def test_own_solver_schedule_and_objective_from_the_command_line(tmp_path: Path) -> None:
    own(tmp_path, "sampler", "ralston", SOURCES["sampler"])
    own(tmp_path, "schedule", "steady", SOURCES["schedule"])
    own(tmp_path, "diffuser", "absolute", SOURCES["diffuser"])
    choices = {"sampler": "ralston", "schedule": "steady", "diffuser": "absolute"}
    chosen = [f"{group}={name}" for group, name in choices.items()]
    # In a Python that has imported nothing yet.
    done = subprocess.run(
        [sys.executable, *arguments(*chosen, "schedule.low=-9", *TINY)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "runs").glob("fits/*/cells/*/result.json")
    result = json.loads(path.read_text())
    assert {group: result[group] for group in choices} == choices
    assert result["nfe"] == 9
    assert result["steps"] == 5
    assert 0 < result["w2_points"] < 100
    # What is suggested next finds the user's options too.
    assert f"diffsweep train --config-dir={tmp_path / 'mine'} " in done.stdout
    assert f"diffsweep train -m --config-dir={tmp_path / 'mine'} " in done.stdout


@pytest.mark.slow
def test_a_file_that_no_longer_fits_is_said_in_one_line(tmp_path: Path) -> None:
    for name, mistake in MISTAKES.items():
        own(tmp_path, mistake.group, name, mistake.source)
        chosen = f"# @package _global_\ndefaults:\n  - override /{mistake.group}: {name}\n"
        option(tmp_path, "experiment", name, chosen)
    single = train(tmp_path, "sampler=gone", *TINY)
    assert single.returncode == 2, single.stderr
    assert "Traceback" not in single.stderr
    assert single.stdout == ""
    assert re.search(MISTAKES["gone"].said, single.stderr)

    # Beside one that fits, each is refused before that one costs anything.
    option(tmp_path, "experiment", "fine", "# @package _global_\nseed: 0\n")
    for name, mistake in MISTAKES.items():
        sweep = train(tmp_path, "-m", f"experiment=fine,{name}", *TINY)
        assert sweep.returncode == 2, sweep.stdout + sweep.stderr
        assert sweep.stderr.count("\n") == 1, sweep.stderr
        assert re.search(f"{name}.*{mistake.said}", sweep.stderr)
        assert not list(tmp_path.glob("runs/fits/*"))
