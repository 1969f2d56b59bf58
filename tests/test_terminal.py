"""What a researcher reads: the best first, only comparable numbers together, everything to copy unbroken."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from diffsweep.report.terminal import count, duration, next_commands, number, show_result, show_sweep, split_overrides
from diffsweep.sweep.record import Fit

RESULT: dict[str, Any] = {
    "cell": "c0",
    "fit": "f0",
    "overrides": "dataset=digits sampler=ddim sampler.nfe=20 schedule=cosine trainer.sizes=[1,2]",
    "status": "done",
    "metric": "fd_digits",
    "fd_digits": 12.3456,
    "fd_digits_floor": 1.2345,
    "floor_samples": 800,
    "samples": 1000,
    "diffuser": "v",
    "sampler": "ddim",
    "schedule": "cosine",
    "backbone": "unet",
    "dataset": "digits",
    "nfe": 20,
    "nfe_asked": 20,
    "steps": 20,
    "parameters": 4412345,
    "fit_seconds": 102.3,
    "sample_seconds": 3.21,
    "evaluate_seconds": 1.0,
    "fit_steps": 5000,
    "grid": "samples.png",
}


def result(**changes: Any) -> dict[str, Any]:
    return RESULT | changes


def piped(show: Any, *arguments: Any, **options: Any) -> list[str]:
    stream = io.StringIO()
    show(*arguments, console=Console(file=stream, width=10_000), **options)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def in_terminal(show: Any, *arguments: Any, width: int = 80) -> str:
    stream = io.StringIO()
    show(*arguments, console=Console(file=stream, width=width, force_terminal=True, color_system="standard"))
    return stream.getvalue()


def without_codes(text: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()


def rows(lines: list[str]) -> list[list[str]]:
    """Tables as words: a row begins with its place."""
    return [re.split(r"\s{2,}", line.strip()) for line in lines if re.match(r"\s*(\d+|#)\s{2,}", line)]


SWEEP = [
    result(
        sampler=sampler,
        schedule=schedule,
        fit=schedule,
        cell=f"{sampler}-{schedule}",
        nfe=nfe,
        fd_digits=score,
        overrides=f"sampler={sampler} schedule={schedule} dataset=digits",
    )
    for score, ((sampler, nfe), schedule) in zip(
        (10.0, 2.0, 9.0, 4.0), product([("ddim", 20), ("heun", 40)], ["cosine", "linear"]), strict=True
    )
]


def test_one_run() -> None:
    lines = piped(show_result, RESULT, runs="/data/runs")
    table = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in lines if re.search(r"\S\s{2,}\S", line))
    assert [table[choice] for choice in ("diffuser", "sampler", "schedule", "backbone", "dataset")] == [
        "v",
        "ddim",
        "cosine",
        "unet",
        "digits",
    ]
    assert table["network calls"] == "20 a sample, 20 steps"
    assert table["fd_digits"] == "12.35  (real against real: 1.234 with 800 samples)"
    assert table["samples"] == "1,000 in 3.2 s"
    assert table["training"] == "5,000 steps in 1 min 42 s"
    assert table["pictures"] == "/data/runs/fits/f0/cells/c0/samples.png"
    assert table["numbers"] == "/data/runs/fits/f0/cells/c0/result.json"


def test_one_run_that_diverged_or_lacks_keys() -> None:
    lines = piped(show_result, result(fd_digits=None, fd_digits_reason="nan", nfe=19))
    assert any("- (nan: the samples diverged)" in line for line in lines)
    assert any("19 a sample, 20 steps (20 asked)" in line for line in lines)
    assert piped(show_result, {"cell": "c0", "fit": "f0"})


def test_next_commands_change_one_thing_and_can_be_typed() -> None:
    commands = {why.partition(":")[0]: shlex.split(text) for text, why in next_commands(RESULT)}
    for words in commands.values():
        assert words[:2] == ["python", "train.py"]
        assert {"dataset=digits", "trainer.sizes=[1,2]"} <= set(words)
        keys = [word.partition("=")[0] for word in words[2:]]
        assert len(keys) == len(set(keys))
    assert {"sampler=heun", "sampler.nfe=20", "schedule=cosine"} < set(commands["another sampler"])
    assert {"sampler=ddim", "sampler.nfe=40"} < set(commands["twice the network calls"])
    assert {"sampler=ddim", "schedule=linear"} < set(commands["another noise schedule"])
    assert {"-m", "sampler=ddim,heun", "schedule=cosine,linear"} < set(commands["all four combinations in one table"])


def test_another_sampler_is_not_given_the_settings_of_this_one() -> None:
    given = result(sampler="heun", overrides="sampler=heun sampler/spacing=karras sampler.order=2 sampler.nfe=9")
    text, _ = next_commands(given)[0]
    assert text == "python train.py sampler.nfe=9 sampler=ddim"


def test_best_first_and_what_does_not_vary_is_said_once() -> None:
    lines = piped(show_sweep, SWEEP)
    assert lines[0] == "4 runs of 2 trainings, by fd_digits (smaller is better)"
    assert rows(lines) == [
        ["#", "sampler", "schedule", "NFE", "fd_digits"],
        ["1", "ddim", "linear", "20", "2.000"],
        ["2", "heun", "linear", "40", "4.000"],
        ["3", "heun", "cosine", "40", "9.000"],
        ["4", "ddim", "cosine", "20", "10.00"],
    ]
    assert lines[1].startswith("all: diffuser v, backbone unet, dataset digits, steps 20, floor 1.234, samples 1,000")


def test_larger_may_be_better() -> None:
    lines = piped(show_sweep, [one | {"metric": "precision", "precision": one["fd_digits"]} for one in SWEEP])
    assert [row[-1] for row in rows(lines)] == ["precision", "10.00", "9.000", "4.000", "2.000"]
    assert "(larger is better)" in lines[0]


def test_a_varied_setting_is_a_column_under_its_short_name() -> None:
    cells = [result(fd_digits=lr, overrides=f"sampler=ddim +optimizer.lr={lr} a.x=1 seed=3") for lr in (0.1, 0.01)]
    assert rows(piped(show_sweep, cells)) == [
        ["#", "lr", "fd_digits"],
        ["1", "0.01", "0.01000"],
        ["2", "0.1", "0.1000"],
    ]
    both = [result(overrides=f"a.x={i} b.x={i} c.steps={i}") for i in range(2)]
    assert rows(piped(show_sweep, both))[0] == ["#", "a.x", "b.x", "c.steps", "fd_digits"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"samples": 50}, "samples"),
        ({"metric": "kid", "kid": 0.1}, "metric"),
        ({"dataset": "fashion_mnist"}, "dataset"),
        ({"dataset": "fashion_mnist", "samples": 50}, "samples and dataset"),
    ],
)
def test_what_was_measured_differently_is_not_ranked_together(change: dict[str, Any], word: str) -> None:
    lines = piped(show_sweep, [*SWEEP, result(fd_digits=0.0001) | change])
    assert lines[0] == f"2 tables, for numbers of different {word} cannot be ranked"
    assert [row[0] for row in rows(lines)] == ["#", "1", "2", "3", "4", "#", "1"]


def test_a_diverged_run_is_last_and_says_why() -> None:
    lost = result(fd_digits=None, fd_digits_reason="nan", sampler="ddpm")
    for cells in ([lost, *SWEEP], [one | {"metric": "recall", "recall": one["fd_digits"]} for one in [lost, *SWEEP]]):
        lines = piped(show_sweep, cells)
        assert rows(lines)[-1][1] == "ddpm"
        assert any("the samples diverged" in line for line in lines)


def test_failures_say_why_and_where(tmp_path: Path) -> None:
    cell = Fit(tmp_path / "fits" / "f1").cell("c1")
    cell.write_error(ValueError("beta[0]=2 must be below 1"))
    given = {"fit": "f", "cell": "c", "overrides": "sampler=b", "reason": "blocked", "error": "x/error.txt"}
    lines = piped(show_sweep, [], [{"fit": "f1", "cell": "c1", "overrides": "sampler=[bold]"}, given], runs=tmp_path)
    assert lines == [
        "no finished runs",
        "2 failed:",
        "  sampler=[bold]",
        "    ValueError: beta[0]=2 must be below 1",
        f"    see {cell.error_file}",
        "  sampler=b",
        "    blocked",
    ]


def test_a_real_pipe_gets_plain_unwrapped_text() -> None:
    code = f"from diffsweep.report.terminal import *; r = {SWEEP!r}; show_result(r[0]); show_sweep(r)"
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.decode()
    assert text.isascii()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) > 80


def test_a_terminal_gets_colour_and_stays_within_80_columns() -> None:
    wide = [
        one
        | {"fit_seconds": 100 * i, "sample_seconds": 10 * i, "steps": 10 + i, "fd_digits_floor": i, "diffuser": "d" * i}
        for i, one in enumerate(SWEEP)
    ]
    text = in_terminal(show_sweep, wide)
    assert "\x1b" in text
    assert max(map(len, without_codes(text))) <= 80
    assert len(rows([line for line in without_codes(text) if "#" not in line])) == 4, "a row was folded"
    assert re.search(r"a wider terminal also shows .*sampling", text)
    assert "a wider terminal" not in in_terminal(show_sweep, wide, width=150)
    assert all("python" in line or len(line) <= 80 for line in without_codes(in_terminal(show_result, RESULT)))


def test_commands_are_never_broken_by_the_terminal() -> None:
    for text, _ in next_commands(RESULT):
        assert any(text in line for line in without_codes(in_terminal(show_result, RESULT, width=40)))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12.3456, "12.35"),
        (0.00012345, "0.0001234"),
        (0.00001, "1.000e-05"),
        (999.96, "1000"),
        (123456.0, "123500"),
        (-1.5, "-1.500"),
        (0.0, "0"),
        (5, "5.000"),
        (1e9, "1.000e+09"),
        (None, "-"),
        ("x", "x"),
        (float("nan"), "nan"),
    ],
)
def test_number(value: object, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), [(50000, "50,000"), (None, "-"), (True, "True")])
def test_count(value: object, text: str) -> None:
    assert count(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (102.3, "1 min 42 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (100 * 3600, "4 d 4 h"),
        (None, "-"),
    ],
)
def test_duration(seconds: object, text: str) -> None:
    assert duration(seconds) == text


def test_overrides_are_split_where_a_new_one_begins() -> None:
    text = "a=1 +b.c=[1, 2]  ++d/e@f=x y ~g h='{k: v}'"
    assert split_overrides(text) == ["a=1", "+b.c=[1, 2]", "++d/e@f=x y", "~g", "h='{k: v}'"]
    assert split_overrides("") == []
