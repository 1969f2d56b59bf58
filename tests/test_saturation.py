"""Saturated samples: counted while they are drawn, recorded beside the data's own share, and told in every table."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import forked_runs
from diffsweep import commands, results
from diffsweep.data.digits import Digits
from finished_runs import CONF, DIGITS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project with a sweep whose second cell leaves the range of the data, and what it printed."""
    project = tmp_path_factory.mktemp("project")
    (project / "conf").symlink_to(CONF)
    words = ["-m", *DIGITS, "guidance=cfg", "guidance.scale=1,60", "hydra.sweep.dir=runs/sweeps/night"]
    done = forked_runs.run([str(ROOT / "train.py"), *words], project, os.environ, timeout=300)
    assert done.returncode == 0, done.stderr
    return project, done.stdout


def cells(project: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in project.glob("runs/fits/*/cells/*/result.json")]
    return {str(one["overrides"]).split("guidance.scale=")[1].split()[0]: one for one in found}


def test_the_share_is_that_of_the_very_samples_and_of_the_data(sweep: tuple[Path, str]) -> None:
    project, _ = sweep
    real = Digits().load("train").x.numpy()
    for result in cells(project).values():
        samples = results.sample(result["cell"], 120, runs=project / "runs", show=False).numpy()
        assert result["saturated"] == np.isin(samples, (0, 255)).mean()
        assert result["reference_saturated"] == np.isin(real, (0, 255)).mean()


def test_a_table_has_a_word_for_saturated_cells_only(sweep: tuple[Path, str]) -> None:
    project, printed = sweep
    tame, wild = (cells(project)[scale] for scale in ("1", "60"))
    assert tame["saturated"] < tame["reference_saturated"] + 0.01 < wild["saturated"]
    share = f"{100 * wild['saturated']:.0f} %"
    real = f"{100 * wild['reference_saturated']:.0f} %"
    lines = printed.splitlines()
    heading = next(line for line in lines if line.startswith("#"))
    assert "saturated" in heading.split()
    rows = [line for line in lines if line[:1].isdigit() and line[1:3] == "  "]
    assert sorted(share in row for row in rows) == [False, True]
    expected = f"saturated samples in 1 cell: up to {share} of their values are at an end of their range"
    assert any(line.startswith(expected) and f"real data {real}" in line for line in lines)
    page = (project / "runs/sweeps/night/report.html").read_text()
    assert expected in page


def test_a_single_run_says_it(
    sweep: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project, _ = sweep
    said = {}
    for scale in ("1", "60"):
        words = [*DIGITS, "guidance=cfg", f"guidance.scale={scale}"]
        done = forked_runs.run([str(ROOT / "train.py"), *words], project, os.environ, timeout=100)
        said[scale] = next(line for line in done.stdout.splitlines() if line.startswith("saturated"))
    assert "real data" in said["1"]
    assert "careful" not in said["1"]
    assert said["60"].endswith("careful, they were cut off there")


def test_given_images_and_points(
    sweep: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project, _ = sweep
    folder = tmp_path / "theirs"
    folder.mkdir()
    for i in range(40):
        Image.fromarray(np.full((8, 8), 255 * (i % 4 > 0) or 9, dtype=np.uint8)).save(folder / f"{i}.png")
    monkeypatch.chdir(project)
    assert commands.main(["evaluate", str(folder), "--reference", "digits", "--runs", str(tmp_path / "runs")]) == 0
    (result,) = [json.loads(path.read_text()) for path in tmp_path.glob("runs/fits/*/cells/*/result.json")]
    assert result["saturated"] == 0.75
    assert "careful, they were cut off there" in capsys.readouterr().out
