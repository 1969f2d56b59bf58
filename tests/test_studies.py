"""Every named study is one that a researcher can start as it stands: it says what it is for, and no cell is refused."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import signature_list
from diffsweep.runs.build import Components
from diffsweep.sweep.plan.plan import Plan

ROOT = Path(__file__).parent.parent
STUDIES = sorted((ROOT / "sweeps").glob("*.yaml"))
FIELDS = ("Question", "Command", "Cost", "Look at")

each_study = pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)


def header(study: Path) -> dict[str, str]:
    """The fields of the comment above a study."""
    lines = itertools.takewhile(lambda line: line.startswith("# "), study.read_text(encoding="utf-8").splitlines())
    fields: dict[str, str] = {}
    for line in lines:
        if match := re.match(r"# (\w[\w ]*):\s+(.*)", line):
            fields[match[1]] = match[2]
        elif fields:
            assert line.startswith("#  "), line
            fields[list(fields)[-1]] += " " + line[1:].strip()
    return fields


def plan(study: Path) -> Plan:
    return signature_list.plan(f"+sweeps={study.stem}")


def test_there_are_studies_and_hydra_finds_them() -> None:
    assert len(STUDIES) >= 8
    assert (ROOT / "conf" / "sweeps").resolve() == ROOT / "sweeps"


@each_study
def test_a_header_says_what_for_how_at_what_cost_and_what_to_look_at(study: Path) -> None:
    assert study.read_text(encoding="utf-8").startswith("# @package _global_\n# Question: ")
    fields = header(study)
    assert tuple(fields) == FIELDS
    assert "?" in fields["Question"]
    assert fields["Command"] == f"python train.py -m +sweeps={study.stem}"
    assert len(fields["Look at"]) > 40


@each_study
def test_the_cost_is_what_the_study_comes_to(study: Path) -> None:
    assert len(plan(study).cells) == len(plan(study).tasks), "two combinations ask for the same cell"
    assert plan(study).warnings == ()
    claimed = re.match(r"(\d+) fits?, (\d+) cells; estimated \d+ min on 2 CPU cores", header(study)["Cost"])
    assert claimed, header(study)["Cost"]
    assert (len(plan(study).fits), len(plan(study).cells)) == (int(claimed[1]), int(claimed[2]))


@each_study
def test_no_cell_is_refused(study: Path) -> None:
    for task in plan(study).tasks:
        # No seed is refused where another is not; building takes most of the time.
        if {"evaluation.seed=1", *(f"seed={seed}" for seed in range(1, 5))} & set(task.overrides):
            continue
        cfg = OmegaConf.create(plan(study).config(task.cell))
        try:
            components = Components.of(cfg)
        except ValueError as error:
            pytest.fail(f"{' '.join(task.overrides)}: {error}")
        assert components.scoring.sampler.nfe == cfg.sampler.nfe


@each_study
def test_a_study_can_be_tried_at_the_scale_of_debugging(study: Path) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", overrides=[f"+sweeps={study.stem}", "trainer=debug"])
    assert cfg.training.steps <= 50
    assert cfg.evaluation.samples <= 50
