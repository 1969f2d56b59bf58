"""`diffsweep compare A B`: what differs in how two cells or trainings were made, their numbers, their samples."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from diffsweep.commands import main
from diffsweep.sweep.store.record import Cell
from diffsweep.sweep.store.result import Result
from made_runs import made

# Of the made runs: the first schedule with all samplers, at four budgets each; then the next schedule.
DDIM_5, DDIM_10, HEUN_5 = "000000000000", "000000000001", "000000000004"
COSINE, LINEAR = "f00000000000", "f00000000001"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "runs"
    for result in made(folder, 48):
        cell = Cell.of(Result.parse(result), folder)
        sampler = {"solver": result["sampler"], "nfe": result["nfe"]}
        cell.write_config({"sampler": sampler, "schedule": result["schedule"], "paths": {"runs": result["cell"]}})
    return folder


@pytest.fixture
def runs(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(finished)
    return finished


def compare(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["compare", *words]) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def rows(printed: str) -> dict[str, list[str]]:
    """First word of each line of a table -> its other columns."""
    lines = (re.split(r" {2,}", line.strip()) for line in printed.splitlines() if line.strip())
    return {first: others for first, *others in lines}


def test_two_cells_show_what_differs_and_by_how_much(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(compare(capsys, DDIM_5, HEUN_5))
    assert found["sampler"] == ["ddim", "heun"]
    assert "schedule" not in found
    assert "sampler.nfe" not in found
    assert "paths.runs" not in found
    value, verdict = found["fd_digits"][2:]
    assert float(value.split()[0]) == pytest.approx(0.1, abs=0.001)
    assert verdict == "B is better"
    # Recorded without values by block: nothing tells how sure a difference is.
    assert found["precision_digits"][2:] == ["no interval is recorded"]
    with (
        Image.open(f"samples/{DDIM_5}-{HEUN_5}.png") as both,
        Image.open(runs / "fits" / COSINE / "cells" / DDIM_5 / "samples.png") as one,
    ):
        assert both.size == (2 * one.width + 24, one.height)
        assert both.crop((0, 0, *one.size)).tobytes() == one.convert("RGB").tobytes()


def test_settings_of_the_config_are_compared_too(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(compare(capsys, DDIM_5, DDIM_10, "--picture", "both.png"))
    assert found["sampler.nfe"] == ["5", "10"]
    assert found["network calls"] == ["5", "10"]
    assert Path("both.png").is_file()


def test_two_trainings_are_compared_on_the_cells_that_both_have(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(compare(capsys, COSINE, LINEAR))
    assert found["schedule"] == ["cosine", "linear"]
    assert found["sampler=heun guidance=none nfe=5"][3] == "A is better"
    # Sampler and budget are paired away: what is left is what the schedules are worth.
    difference, verdict = found["mean of 24 pairs"]
    assert float(difference.split()[0]) == pytest.approx(-0.5, abs=0.002)
    assert verdict == "A is better"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((DDIM_5, DDIM_5), "is 000000000000, as A: name another one"),
        ((DDIM_5, "nowhere"), "is no cell or fit in runs"),
        ((DDIM_5, "0000000000"), "begins 48 names"),
        ((DDIM_5, COSINE), "is a cell and f00000000000 a training: name two of one kind"),
    ],
)
def test_a_mistake_is_one_line(
    runs: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    line = compare(capsys, *words, code=2)
    assert len(line.splitlines()) == 1
    assert said in line
