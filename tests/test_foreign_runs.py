"""A runs folder of somebody else is data: it runs no code, moves no cursor, and is no formula in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.text import Text

from diffsweep import commands, messages
from diffsweep.report import export
from diffsweep.sweep.store.lease import Lease
from diffsweep.sweep.store.record import Fit

# Sets the title of the window, moves the cursor up, writes in the other direction.
HOSTILE = "a\x1b]0;owned\x07\x1b[1A\x9b2J\u202egnp.x"

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        code = commands.main([*words, "--runs", str(tmp_path / "runs")])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Runs whose every text is hostile: names, reasons, sweeps, overrides."""
    runs = tmp_path / "runs"
    fit = Fit(runs / "fits" / "f")
    fit.write_done({"fit": "f"})
    shared = {"fit": "f", "metric": "fd_digits", "samples": 500, "nfe": 5, "overrides": f"=cmd|{HOSTILE}"}
    for index, name in enumerate(("c", "d")):
        choices = dict.fromkeys(("sampler", "schedule", "dataset", "backbone", "diffuser"), f"{HOSTILE}{index}")
        fit.cell(name).write_result(shared | choices | {"cell": name, "fd_digits": 0.5 + index, "sweep": HOSTILE})
    lost = Fit(runs / "fits" / "lost")
    with Lease(lost.folder).acquire():
        lost.write_status("failed", reason=HOSTILE)
    plan = runs / "sweeps" / "night" / "plan.json"
    plan.parent.mkdir(parents=True)
    tasks = [
        {"num": 0, "overrides": [f"sampler={HOSTILE}"], "fit": fit, "cell": cell, "choices": "k", "config": {}}
        for fit, cell in (("f", "c"), ("lost", "e"))
    ]
    content = {"runs": str(runs), "command": HOSTILE, "created": "2026", "tasks": tasks, "parts": {"k": {}}}
    plan.write_text(json.dumps(content | {"warnings": [HOSTILE], "hydra": {}}))
    return runs


@pytest.mark.parametrize(
    "words",
    [
        ["results"],
        ["results", "--sort", "sampler"],
        ["results", "--format", "csv"],
        ["results", "--format", "json"],
        ["results", f"sampler={HOSTILE}"],
        ["results", HOSTILE],
        ["status"],
        ["status", "night"],
        ["gc", "--older-than", "0"],
        ["report", "night"],
        ["report", HOSTILE],
        ["sample", HOSTILE],
        ["resume", HOSTILE],
        ["cancel", HOSTILE],
        ["wandb-sync", "--offline", HOSTILE],
    ],
    ids=lambda words: " ".join(words).encode("unicode_escape").decode()[:40],
)
def test_no_command_prints_a_control_character(words: list[str], run: Call, hostile: Path) -> None:
    _, out, err = run(*words)
    assert out + err
    assert not [character for character in out + err if character in "\x1b\x07\x9b\u202e"]


def test_control_characters_are_shown_in_their_width() -> None:
    assert messages.printable("a\x1b[1A\tb\n\x7f\x9b\u202e") == "a\u241b[1A\tb\n\u2421\ufffd\ufffd"
    console = messages.console()
    with console.capture() as captured:
        console.print(Text("a\x1b[1Ab"))
    assert captured.get() == "a\u241b[1Ab\n"


def test_no_cell_of_a_csv_is_a_formula(run: Call, hostile: Path) -> None:
    texts = {"=1+1": "'=1+1", "@SUM(A1)": "'@SUM(A1)", "+experiment=toy": "'+experiment=toy", "-m": "'-m"}
    kept = {"-1.5e-3": "-1.5e-3", "+2": "+2", "a=b": "a=b", "": ""}
    written = export.text([{f"={index}": text for index, text in enumerate(texts | kept)}], "csv")
    header, row = csv.reader(io.StringIO(written))
    assert header == [f"'={index}" for index in range(len(row))]
    assert row == list((texts | kept).values())
    assert "\n=" not in run("results", "--format", "csv")[1]
