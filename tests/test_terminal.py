"""What a researcher reads: the best first, only comparable numbers together, everything to copy unbroken."""

from __future__ import annotations

import io
import json
import re
import shlex
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import processes
from diffsweep.report import export
from diffsweep.report.failure import Failure
from diffsweep.report.format import count, duration, number, with_error
from diffsweep.report.next_commands import next_commands
from diffsweep.report.terminal import line, show_result, show_sweep, show_where
from diffsweep.sweep.store.record import Fit
from diffsweep.sweep.store.result import Result

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


def test_it_is_said_which_weights_were_kept() -> None:
    for kept, said in (
        (5000, "5,000 steps in 1 min 42 s\n"),
        (1200, "5,000 steps in 1 min 42 s, weights of step 1,200\n"),
    ):
        console = Console(file=io.StringIO(), width=10_000)
        show_result(parsed(RESULT | {"fit_kept_step": kept}), console)
        assert isinstance(console.file, io.StringIO)
        assert said in console.file.getvalue()


def test_no_line_in_a_pipe_ends_with_spaces() -> None:
    console = Console(file=io.StringIO(), width=10_000)
    show_result(parsed(RESULT | {"evaluation_note": "long " * 40 + "note"}), console)
    show_sweep(parsed([RESULT, RESULT | {"cell": "c1", "sampler": "heun", "fd_digits": 20.0}]), console=console)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue().splitlines()
    assert any("dpm" in line or "heun" in line for line in printed)
    assert [line for line in printed if line != line.rstrip()] == []


def result(**changes: Any) -> dict[str, Any]:
    return RESULT | changes


def parsed(value: Any) -> Any:
    """Flat results, alone or in a list, as the functions that show them take them."""
    if isinstance(value, list):
        return [parsed(one) for one in value]
    return Result.parse(value) if isinstance(value, dict) else value


def piped(show: Any, *arguments: Any, **options: Any) -> list[str]:
    stream = io.StringIO()
    show(*map(parsed, arguments), console=Console(file=stream, width=10_000), **options)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def in_terminal(show: Any, *arguments: Any, width: int = 80) -> str:
    stream = io.StringIO()
    show(
        *map(parsed, arguments), console=Console(file=stream, width=width, force_terminal=True, color_system="standard")
    )
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
    assert table["verdict"] == "10.0 times what real data reach, 1.234: undertrained, or too few steps"
    assert table["samples"] == "1,000 in 3.2 s"
    assert table["training"] == "5,000 steps in 1 min 42 s"
    assert table["pictures"] == "/data/runs/fits/f0/cells/c0/samples.png"
    assert table["numbers"] == "/data/runs/fits/f0/cells/c0/result.json"


def test_one_run_that_diverged_or_lacks_keys() -> None:
    reason = "3 of 500 samples are not finite"
    lost = result(fd_digits=None, fd_digits_reason=reason, nfe=19)
    lines = piped(show_result, lost)
    assert any(f"- ({reason})" in line for line in lines)
    assert line(parsed(lost)).endswith(f"fd_digits - ({reason})")
    assert any("19 a sample, 20 steps (20 asked)" in line for line in lines)
    assert piped(show_result, {"cell": "c0", "fit": "f0"})


def test_one_run_shows_every_number_with_its_interval_and_its_note() -> None:
    others = {"kd_digits": 0.0123, "kd_digits_low": 0.0111, "kd_digits_high": 0.0135, "kd_digits_floor": 0.0001}
    others |= {"accuracy_digits": 0.5, "accuracy_digits_low": 0.5, "accuracy_digits_high": 0.5}
    more = {f"fd_digits_{i}{what}": float(i) for i in range(20) for what in ("", "_low", "_high")}
    note = "500 samples in 1280 dimensions"
    known = {"fd_digits_low": 12.0, "fd_digits_high": 12.7, "evaluation_note": note}
    given = result(**known, reference_samples=60_000, reference_split="train", **others)
    table = dict(
        re.split(r"\s{2,}", text, maxsplit=1) for text in piped(show_result, given) if re.search(r"\S\s{2,}\S", text)
    )
    assert table["fd_digits"] == "12.35 +- 0.35  (real against real: 1.234 with 800 samples)"
    assert table["kd_digits"] == "0.0123 +- 0.0012  (real against real: 0.0001000)"
    assert table["accuracy_digits"] == "0.5000"
    assert table["careful"] == note
    assert table["reference"] == "60,000 real samples, split train"
    assert line(parsed(given)).endswith("fd_digits 12.35 +- 0.35")
    lines = piped(show_result, given | more)
    assert any("and 10 more in result.json" in text for text in lines)
    assert "12.35 \N{PLUS-MINUS SIGN} 0.35" in in_terminal(show_result, given)


def test_next_commands_change_one_thing_and_can_be_typed() -> None:
    commands = {why.partition(":")[0]: shlex.split(text) for text, why in next_commands(parsed(RESULT))}
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
    text, _ = next_commands(parsed(given))[0]
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
    drawn = [result(overrides=f"optimizer.lr={lr!r}") for lr in (0.00069140827340068, 0.00029385434685812)]
    assert [row[1] for row in rows(piped(show_sweep, drawn))] == ["lr", "0.0006914", "0.0002939"]
    both = [result(overrides=f"a.x={i} b.x={i} c.steps={i}") for i in range(2)]
    assert rows(piped(show_sweep, both))[0] == ["#", "a.x", "b.x", "c.steps", "fd_digits"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"samples": 50}, "samples (50 and 1,000)"),
        ({"metric": "kid", "kid": 0.1}, "metric (fd_digits and kid)"),
        ({"dataset": "fashion_mnist", "reference_digest": "c"}, "dataset (digits and fashion_mnist)"),
        ({"reference_split": "test", "reference_samples": 10}, "reference split (test and train)"),
        ({"reference_digest": "c"}, "reference data (b and c)"),
        ({"extractor_digest": "d"}, "extractor weights (a and d)"),
        ({"resize": "bicubic", "extractor_digest": "d"}, "resize (bicubic and none)"),
        ({"bits": 8}, "bits (8 and none)"),
    ],
)
def test_what_was_measured_differently_is_not_ranked_together(change: dict[str, Any], word: str) -> None:
    how = {"reference_split": "train", "reference_samples": 60, "reference_digest": "b", "extractor_digest": "a"}
    how |= {"resize": "none", "bits": None}
    lines = piped(show_sweep, [*(one | how for one in SWEEP), result(fd_digits=0.0001) | how | change])
    assert lines[0] == f"2 tables, for numbers of different {word} cannot be ranked"
    assert [row[0] for row in rows(lines)] == ["#", "1", "2", "3", "4", "#", "1"]
    titles = [text for text in lines if "is better" in text]
    field, values = word.removesuffix(")").split(" (")
    told = {title.partition("; ")[2] for title in titles}
    assert told == ({""} if field == "metric" else {f"{field} {value}" for value in values.split(" and ")})


def test_results_that_do_not_say_how_they_were_measured_stand_alone() -> None:
    known = [one | {"reference_split": "train", "bits": None} for one in SWEEP[:2]]
    lines = piped(show_sweep, [*known, *SWEEP[2:]])
    assert lines[0] == "2 tables, for numbers of different reference split (train and unrecorded) cannot be ranked"
    lines = piped(show_sweep, [known[0], {key: value for key, value in known[1].items() if key != "bits"}])
    assert lines[0] == "2 tables, for numbers of different bits (none and unrecorded) cannot be ranked"


def uncertain(value: float, shift: float = 0.0, name: str = "fd_digits", **fields: Any) -> dict[str, Any]:
    """A result with an interval; all of them move alike with the samples, but for `shift`."""
    without = [value + 0.1 * (-1) ** k + shift * (k % 5 - 2) for k in range(20)]
    interval = {f"{name}_low": value - 0.9, f"{name}_high": value + 0.9}
    return result(
        **{name: value, f"{name}_jackknife": " ".join(map(str, without)), "sample_seed": 0} | interval | fields
    )


UNCERTAIN = [
    uncertain(10.0, sampler="ddim"),
    uncertain(10.05, 0.02, sampler="heun"),
    uncertain(12.0, 0.02, sampler="ddpm"),
    uncertain(10.5, sampler="lms", fd_digits_jackknife=None),
    uncertain(0.0, sampler="unipc", fd_digits=None, fd_digits_reason="nan", fd_digits_low=None),
]


def test_what_cannot_be_told_from_the_best_is_marked() -> None:
    lines = piped(show_sweep, UNCERTAIN)
    table = rows(lines)
    assert table[0][-3:] == ["fd_digits", "best", "behind best"]
    assert [row[1:2] + row[-3:-1] for row in table[1:]] == [
        ["ddim", "10.00 +- 0.90", "*"],
        ["heun", "10.05 +- 0.90", "="],
        ["lms", "10.50 +- 0.90", "?"],
        ["ddpm", "12.00 +- 0.90", "-"],
        ["unipc", "-", "-"],
    ]
    assert {len(row) for row in table} == {5}, "no cell is empty: columns can be counted"
    assert re.fullmatch(r"\+2\.00 \+- 0\.\d\d", table[4][-1])
    (legend,) = [text for text in lines if text.startswith("= ")]
    assert "the truly best is * or = with 95 %" in legend
    assert any(text.startswith("? ") for text in lines)
    assert not any("not paired" in text for text in lines)


def test_a_mark_is_explained_only_where_it_stands() -> None:
    lines = piped(show_sweep, [UNCERTAIN[0], UNCERTAIN[2]])
    assert [row[-2] for row in rows(lines)] == ["best", "*", "-"]
    assert not any(text.startswith(("=", "?")) for text in lines)
    two = piped(show_sweep, UNCERTAIN[:2])
    assert any("its difference contains 0" in text for text in two)
    assert "best" not in rows(piped(show_sweep, [UNCERTAIN[0], UNCERTAIN[3]]))[0], "nothing can be told"
    assert "best" not in rows(piped(show_sweep, UNCERTAIN[:1]))[0]


def test_other_noise_is_said() -> None:
    lines = piped(show_sweep, [UNCERTAIN[0], UNCERTAIN[2] | {"sample_seed": 1}])
    assert any("not paired" in text for text in lines)


def test_the_best_is_marked_in_any_order_and_among_all() -> None:
    lines = piped(show_sweep, UNCERTAIN[2::-1], ranked=False)
    assert [row[-2] for row in rows(lines)] == ["best", "-", "=", "*"]
    lines = piped(show_sweep, UNCERTAIN[2::-1], ranked=False, limit=1)
    assert [row[-2] for row in rows(lines)] == ["best", "-"]
    larger = [
        uncertain(-one["fd_digits"], sampler=one["sampler"], name="recall", metric="recall") for one in UNCERTAIN[:3]
    ]
    assert [row[-2] for row in rows(piped(show_sweep, larger))] == ["best", "*", "-", "-"]


def test_what_a_list_of_many_results_leaves_out_is_read_for_those_shown(tmp_path: Path) -> None:
    light = []
    for i, one in enumerate(UNCERTAIN[:3]):
        cell = one | {"fit": "f", "cell": f"c{i}"}
        Fit(tmp_path / "fits" / "f").cell(f"c{i}").write_result(parsed(cell))
        light.append({key: value for key, value in cell.items() if not key.endswith("_jackknife")})
    assert piped(show_sweep, light, runs=tmp_path) == piped(show_sweep, UNCERTAIN[:3])


def test_another_number_may_rank() -> None:
    cells = [one | {"kd_digits": -one["fd_digits"], "kd_digits_floor": 0.0} for one in SWEEP]
    lines = piped(show_sweep, [*cells, SWEEP[0]], metric="kd_digits")
    assert lines[0] == "left out: 1 run without kd_digits"
    assert [row[-1] for row in rows(lines)] == ["kd_digits", "-10.00", "-9.000", "-4.000", "-2.000"]
    with pytest.raises(ValueError, match="no result has a number kid; choose one of fd_digits, kd_digits"):
        show_sweep(parsed(cells), metric="kid")


def test_the_best_of_each_table_is_shown(tmp_path: Path) -> None:
    shown = [*SWEEP, result(cell="few", samples=50, fd_digits=0.1)]
    lines = piped(show_where, shown, tmp_path / "table.csv", tmp_path / "report.html")
    best = [text for text in lines if text.startswith("best pictures")]
    assert ["ddim-linear" in best[0], "few" in best[1], len(best)] == [True, True, 2]


def test_a_csv_has_no_blocks_and_json_has() -> None:
    csv, json = (export.text(parsed(UNCERTAIN), kind) for kind in ("csv", "json"))
    assert "fd_digits_low" in csv
    assert "jackknife" not in csv
    assert "jackknife" in json


def test_a_diverged_run_is_last_and_says_why() -> None:
    reason = "3 of 500 samples are not finite"
    lost = result(fd_digits=None, fd_digits_reason=reason, recall_reason=reason, sampler="ddpm")
    for cells in ([lost, *SWEEP], [one | {"metric": "recall", "recall": one["fd_digits"]} for one in [lost, *SWEEP]]):
        lines = piped(show_sweep, cells)
        assert rows(lines)[-1][1] == "ddpm"
        assert f"- : no {cells[0]['metric']}, ranked last: {reason}" in lines


def test_failures_say_why_and_where(tmp_path: Path) -> None:
    cell = Fit(tmp_path / "fits" / "f1").cell("c1")
    cell.write_error(ValueError("beta[0]=2 must be below 1"))
    given = Failure("f", "c", "sampler=b", reason="blocked")
    lines = piped(show_sweep, [], [Failure("f1", "c1", "sampler=[bold]"), given], runs=tmp_path)
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
    text = processes.run("show_results", json.dumps(SWEEP), check=True).stdout
    assert text.isascii()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) > 80


def test_a_terminal_gets_colour_and_stays_within_80_columns() -> None:
    wide = [
        one
        | {"fit_seconds": 100 * i, "sample_seconds": 10 * i, "steps": 10 + i, "fd_digits_floor": i, "diffuser": "d" * i}
        | {key: UNCERTAIN[0][key] for key in ("fd_digits_low", "fd_digits_high", "fd_digits_jackknife", "sample_seed")}
        for i, one in enumerate(SWEEP)
    ]
    text = in_terminal(show_sweep, wide)
    assert "\x1b" in text
    assert max(map(len, without_codes(text))) <= 80
    assert len(rows([line for line in without_codes(text) if "#" not in line])) == 4, "a row was folded"
    assert re.search(r"a wider terminal also shows .*sampling", " ".join(without_codes(text)))
    assert "behind best" in in_terminal(show_sweep, wide, width=100)
    assert "a wider terminal" not in in_terminal(show_sweep, wide, width=150)
    assert all("python" in line or len(line) <= 80 for line in without_codes(in_terminal(show_result, RESULT)))


def test_commands_are_never_broken_by_the_terminal() -> None:
    for text, _ in next_commands(parsed(RESULT)):
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


@pytest.mark.parametrize(
    ("value", "half", "text"),
    [
        (0.38012, 0.01234, "0.380 +- 0.012"),
        (12.3456, 0.0996, "12.35 +- 0.10"),
        (0.0003, 0.0021, "0.0003 +- 0.0021"),
        (-0.0003, 0.21, "0.00 +- 0.21"),
        (1234.5, 67.8, "1234 +- 68"),
        (123456.0, 6789.0, "123500 +- 6800"),
        (1.23e-5, 4.5e-7, "1.230e-05 +- 4.5e-07"),
        (2.5e7, 1.2e6, "2.50e+07 +- 1.2e+06"),
        (12.3456, None, "12.35"),
        (0.5, 0.0, "0.5000"),
        (0.95, 1e-17, "0.9500"),
        (0.0, 0.0, "0"),
        (None, 1.0, "-"),
        (1.0, float("nan"), "1.000"),
    ],
)
def test_an_error_has_two_digits_and_its_value_as_many_places(value: object, half: float | None, text: str) -> None:
    assert with_error(value, half) == text


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
