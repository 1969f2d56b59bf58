"""A user's own solver, schedule and objective: files of the user's folder, used from the command line as they are."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.status.monitor import Watch

ROOT = Path(__file__).parent.parent

RALSTON = '''
from dataclasses import dataclass

from diffsweep.diffusion import transfer


@dataclass(frozen=True)
class Ralston:
    """Two thirds of the step, and three quarters of the slope found there."""

    part: float = 2 / 3
    order = 2

    def nfe(self, steps):
        return 2 * steps - 1

    def plan(self, legs, schedule):
        return None

    def aim(self, denoise, x, t, s, memory):
        here = denoise(x, t)
        if s.sigma == 0:
            return here, None
        middle = t.at(t.noise + self.part * (s.noise - t.noise))
        y = transfer(x, t, middle, here)
        first, second = (x - t.alpha * here) / t.sigma, (y - middle.alpha * denoise(y, middle)) / middle.sigma
        return (x - t.sigma * first.lerp(second, 0.5 / self.part)) / t.alpha, None
'''

STEADY = '''
from diffsweep.diffusion import Schedule, preserving


class Steady(Schedule):
    """Log-SNR falls at a constant rate."""

    path = staticmethod(preserving)

    def __init__(self, high=10.0, low=-8.0):
        self.high, self.low = high, low

    def logsnr(self, t):
        return self.high + (self.low - self.high) * t

    def inverse(self, logsnr):
        return (self.high - logsnr) / (self.high - self.low)
'''

ABSOLUTE = '''
import torch

from diffsweep.diffusion import Denoiser
from diffsweep.diffusion.objective import Objective
from diffsweep.diffusion.target import EDM


class Absolute(Objective):
    """The absolute error of x0."""

    def build(self, backbone, schedule, sigma_data=0.5):
        return Denoiser(backbone, schedule, EDM(sigma_data), sigma_data)

    def draw(self, shape, generator=None):
        return torch.rand(shape[0], generator=generator), torch.randn(shape, generator=generator)

    def regress(self, denoiser, x0, u, eps, condition=None):
        level = denoiser.schedule.level(1 - u)
        here = level.like(x0)
        return (denoiser(here.alpha * x0 + here.sigma * eps, level, condition) - x0).abs().mean(1)
'''

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

# Group, the user's class, what was changed in it (None: the file is gone), and the words of the line that says so.
MISTAKES = {
    "gone": ("sampler", None, "sampler.solver._target_=gone.Ralston cannot be loaded: .*No module named 'gone'"),
    "renamed": ("sampler", RALSTON.replace("class Ralston", "class Other"), "renamed.Ralston cannot be loaded"),
    "broken": ("sampler", RALSTON.replace("class Ralston:", "class Ralston"), "broken.Ralston.*broken.py, line"),
    "aimless": ("sampler", RALSTON.replace("def aim", "def goal"), "has no attribute 'aim'"),
    "costless": ("sampler", RALSTON.replace("def nfe", "def cost"), "has no attribute 'nfe'"),
    "forgetful": ("sampler", RALSTON.replace(", memory)", ")"), "aim.* takes 5 positional arguments"),
    "narrow": ("schedule", STEADY.replace("high=10.0, low=-8.0", "high=10.0"), "unexpected keyword argument 'low'"),
    "oneway": ("schedule", STEADY.replace("def inverse", "def time_of"), "schedule: .*abstract.* inverse"),
    "drawless": ("diffuser", ABSOLUTE.replace("def draw", "def drawn"), "diffuser: .*abstract.* draw"),
}


def train(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``python train.py`` in the folder, its modules findable by nothing but lying there."""
    hidden = ("HYDRA_FULL_ERROR", "PYTHONPATH")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    command = [sys.executable, str(ROOT / "train.py"), "--config-dir", "mine", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


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
    own(tmp_path, "sampler", "ralston", RALSTON)
    own(tmp_path, "schedule", "steady", STEADY)
    own(tmp_path, "diffuser", "absolute", ABSOLUTE)
    choices = {"sampler": "ralston", "schedule": "steady", "diffuser": "absolute"}
    done = train(tmp_path, *(f"{group}={name}" for group, name in choices.items()), "schedule.low=-9", *TINY)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "runs").glob("fits/*/cells/*/result.json")
    result = json.loads(path.read_text())
    assert {group: result[group] for group in choices} == choices
    assert result["nfe"] == 9
    assert result["steps"] == 5
    assert 0 < result["w2_points"] < 100
    # What is suggested next finds the user's options too.
    assert f"python train.py --config-dir={tmp_path / 'mine'} " in done.stdout
    assert f"python train.py -m --config-dir={tmp_path / 'mine'} " in done.stdout


@pytest.mark.slow
def test_a_file_that_no_longer_fits_is_said_in_one_line(tmp_path: Path) -> None:
    for name, (group, code, _) in MISTAKES.items():
        own(tmp_path, group, name, code)
        option(tmp_path, "experiment", name, f"# @package _global_\ndefaults:\n  - override /{group}: {name}\n")
    single = train(tmp_path, "sampler=gone", *TINY)
    assert single.returncode == 2, single.stderr
    assert "Traceback" not in single.stderr
    assert single.stdout == ""
    assert re.search(MISTAKES["gone"][2], single.stderr)

    # With one that fits: mistakes in samplers then cost no more than their own cells.
    option(tmp_path, "experiment", "fine", "# @package _global_\nseed: 0\n")
    sweep = train(tmp_path, "-m", f"experiment={','.join(MISTAKES)},fine", "hydra.sweep.dir=sweep", *TINY)
    assert sweep.returncode == 1, sweep.stderr
    assert "Traceback" not in sweep.stdout + sweep.stderr
    plan = Plan.read(tmp_path / "sweep")
    look = Watch(plan, every=0).look()
    for (_, _, words), task in zip(MISTAKES.values(), plan.tasks, strict=False):
        assert re.search(words, look.cells[task.cell].reason)
        assert look.cells[task.cell].reason in sweep.stdout
    assert [cell for cell in plan.cells if plan.cell(cell).done] == [plan.tasks[-1].cell]
