"""`diffsweep results` and `gc` as a user calls them: what they print, what they delete, what they never touch."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import processes
from diffsweep import commands
from diffsweep.report import export, garbage_table, leaderboard
from diffsweep.sweep.store import garbage
from diffsweep.sweep.store.lease import Lease
from diffsweep.sweep.store.process import Process
from diffsweep.sweep.store.record import Cell, Fit
from diffsweep.sweep.store.result import Result
from prerequisites import need_module


def write(runs: Path, fit: str, cell: str, **fields: Any) -> Cell:
    record = Fit(runs / "fits" / fit).cell(cell)
    common = {"cell": cell, "fit": fit, "sampler": "ddim", "schedule": "cosine", "dataset": "digits", "nfe": 20}
    record.write_result(Result.parse(common | {"metric": "fd_digits", "fd_digits": 0.5, "samples": 500} | fields))
    return record


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs"
    for i, sampler in enumerate(["ddim", "heun", "dpmpp_2m"]):
        write(folder, f"f{i % 2}", f"c{i}", sampler=sampler, nfe=5 * (i + 1), fd_digits=(i - 1) ** 2 + 0.25)
    for name in ("f0", "f1"):
        Fit(folder / "fits" / name).write_done({"fit": name})
    return folder


@pytest.fixture
def run(runs: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = commands.main([*words, "--runs", str(runs)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


Call = Callable[..., tuple[int, str, str]]


def test_a_table_shows_the_best_first(run: Call) -> None:
    code, out, err = run("results")
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines() if line[:1].isdigit() and "runs" not in line]
    assert [(row[0], row[1]) for row in rows] == [("1", "heun"), ("2", "ddim"), ("3", "dpmpp_2m")]


def test_a_table_keeps_the_order_that_is_asked_for_and_its_length(run: Call) -> None:
    _, out, _ = run("results", "--sort", "nfe", "--reverse", "--limit", "2")
    assert out.index("dpmpp_2m") < out.index("heun")
    assert "ddim" not in out
    assert "the first 2 of 3" in out


def test_conditions_may_stand_anywhere_among_the_options(run: Call) -> None:
    _, out, _ = run("results", "nfe>5", "--format", "json", "nfe<15")
    assert [record["nfe"] for record in json.loads(out)] == [10]


def test_what_a_cut_table_says_of_all_is_said_of_those_shown(run: Call) -> None:
    assert "all: schedule cosine" in run("results")[1]
    assert "all shown: schedule cosine" in run("results", "--limit", "2")[1]


def test_cells_that_were_measured_differently_are_not_ranked_together(run: Call, runs: Path) -> None:
    write(runs, "f0", "more", samples=50_000)
    _, out, _ = run("results")
    assert "2 tables" in out
    assert "different samples" in out


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, None),
        ({"git_commit": "b" * 40}, "commits aaaaaaa and bbbbbbb"),
        ({"git_dirty": True}, "commits aaaaaaa and aaaaaaa with changes"),
        ({"version_torch": "2.9"}, "torch 2.8 and 2.9"),
        ({"version_torch": None, "git_commit": None}, None),
    ],
    ids=str,
)
def test_numbers_of_different_code_are_not_shown_without_a_word(changed: dict[str, Any], said: str | None) -> None:
    first = {"git_commit": "a" * 40, "git_dirty": False, "version_torch": "2.8"}
    warning = leaderboard.version_warning([Result.parse(first), Result.parse(first | changed)])
    assert warning is None if said is None else said in str(warning) and "\n" not in str(warning)


def test_the_table_says_that_its_code_differs(run: Call, runs: Path) -> None:
    write(runs, "f0", "a", version_torch="2.8")
    write(runs, "f0", "b", version_torch="2.9")
    assert "careful: made with different torch 2.8 and 2.9" in run("results")[1]
    assert "careful" not in run("results", "version_torch=2.9")[1]


def test_csv_and_json_hold_what_the_files_hold(run: Call, runs: Path) -> None:
    write(runs, "f1", "odd", note='a,b "c"\nd', fd_digits=float("nan"), flag=True)
    files = [json.loads(path.read_text()) for path in sorted(runs.glob("fits/*/cells/*/result.json"))]
    assert json.loads(run("results", "--format", "json")[1]) == files
    rows = list(csv.DictReader(io.StringIO(run("results", "--format", "csv")[1])))
    assert [{key: text for key, text in row.items() if text} for row in rows] == [
        {key: str(value) for key, value in record.items() if value is not None} for record in files
    ]
    assert json.loads(run("results", "--format", "json", "sampler=heun")[1]) == [
        record for record in files if record["sampler"] == "heun"
    ]
    limited = json.loads(run("results", "--format", "json", "--sort", "fd_digits", "--limit", "1")[1])
    assert [record["sampler"] for record in limited] == ["heun"]


def test_only_a_csv_leaves_out_the_blocks_of_an_interval(run: Call, runs: Path) -> None:
    write(runs, "f1", "sure", fd_digits_low=0.4, fd_digits_high=0.6, fd_digits_jackknife="0.5 0.4 0.6")
    header = run("results", "--format", "csv")[1].splitlines()[0].split(",")
    assert "fd_digits_low" in header
    assert "fd_digits_jackknife" not in header
    records = json.loads(run("results", "--format", "json")[1])
    assert [record["fd_digits_jackknife"] for record in records if record["cell"] == "sure"] == ["0.5 0.4 0.6"]


def test_what_cannot_be_told_from_the_best_is_marked(run: Call, runs: Path) -> None:
    for value, name in [(0.0, "a"), (5.0, "b"), (10.0, "c"), (0.001, "e")]:
        without = " ".join(str(value + 0.1 * (k % 2) + 0.01 * ((k + ord(name)) % 3)) for k in range(20))
        known = {"fd_digits": value, "fd_digits_low": value - 1, "fd_digits_high": value + 1, "sample_seed": 0}
        write(runs, "f2", name, sampler=name, samples=100, fd_digits_jackknife=without, **known)
    _, out, _ = run("results", "samples=100")
    marks = re.findall(r"^\d +(\w) .* ([*=-])  ", out, re.MULTILINE)
    assert marks == [("a", "*"), ("e", "="), ("b", "-"), ("c", "-")]
    assert "= cannot be told from the best" in out


def test_another_number_may_rank(run: Call, runs: Path) -> None:
    for i in range(3):
        write(runs, "f2", f"k{i}", sampler=f"s{i}", kd_digits=3.0 - i, kd_digits_floor=0.0, fd_digits=float(i))
    code, out, _ = run("results", "--metric", "kd_digits")
    assert code == 0
    assert "left out: 3 runs without kd_digits" in out
    assert "by kd_digits (smaller is better)" in out
    assert re.findall(r"^\d +(s\d)", out, re.MULTILINE) == ["s2", "s1", "s0"]
    assert "by kd_digits" in run("results", "--metric", "kd_digits", "--sort", "cell")[1]


def test_a_file_is_written_whole(run: Call, tmp_path: Path) -> None:
    assert run("results", "--format", "csv", "--out", str(tmp_path / "new/table.csv")) == (0, "", "")
    assert (tmp_path / "new/table.csv").read_text() == run("results", "--format", "csv")[1]
    code, _, err = run("results", "--format", "csv", "--out", str(tmp_path / "new"))
    assert code == 2
    assert "Is a directory" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "runs"]


def test_parquet_has_one_type_a_column(run: Call, runs: Path, tmp_path: Path) -> None:
    need_module("pyarrow")
    write(runs, "f1", "odd", mixed="text", some=1, fd_digits=float("inf"))
    write(runs, "f1", "even", mixed=3, some=1.5)
    file = tmp_path / "table.parquet"
    assert run("results", "--format", "parquet", "--out", str(file), "--sort", "cell") == (0, "", "")
    table = import_module("pyarrow.parquet").read_table(file).to_pydict()
    assert table["cell"] == ["c0", "c1", "c2", "even", "odd"]
    assert table["mixed"] == [None, None, None, "3", "text"]
    assert table["some"] == [None, None, None, 1.5, 1.0]
    assert table["fd_digits"] == [1.25, 0.25, 1.25, 0.5, None]
    assert table["nfe"] == [5, 10, 15, 20, 20]


def test_without_pyarrow_it_says_what_to_install(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = run("results", "--format", "parquet", "--out", "table.parquet")
    assert code == 2
    assert "pip install" in err
    assert not Path("table.parquet").exists()


def test_order_puts_what_is_absent_last() -> None:
    values = [3, None, "a", 1.5, -2]
    records = [Result.parse({"a": value}) for value in values]
    assert [record.values["a"] for record in export.sort_by(records, "a")] == [-2, 1.5, 3, "a", None]
    assert [record.values["a"] for record in export.sort_by(records, "a", reverse=True)] == ["a", 3, 1.5, -2, None]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["results", "smapler=ddim"], "sampler"),
        (["results", "sampler=dimd"], "none of the 3 finished runs passes sampler=dimd"),
        (["results", "--sort", "speed"], "no result has that column"),
        (["results", "--sort", "speed", "--format", "csv"], "no result has that column"),
        (["results", "--reverse"], "--sort"),
        (["results", "--metric", "kid"], "no result has a number kid; choose one of fd_digits"),
        (["results", "--metric", "kid", "--format", "csv"], "--sort kid orders csv"),
        (["results", "--format", "parquet"], "--out FILE"),
        (["results", "--out", "table.txt"], "--format csv, json or parquet"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_costs_one_line(words: list[str], said: str, run: Call) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["result"],
        ["results", "--lim", "-1"],
        ["results", "--what"],
        ["gc", "word"],
        ["results", "--format", "xml"],
        ["gc", "--older-than", "-1"],
    ],
)
def test_what_the_parser_refuses_is_a_mistake_too(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        commands.main(words)
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_without_results_it_says_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["results", "--runs", str(tmp_path)]) == 2
    assert "python train.py" in capsys.readouterr().err


def test_what_cannot_be_read_is_named(run: Call, runs: Path) -> None:
    (runs / "fits/f0/cells/c0/result.json").write_text("{")
    code, out, err = run("results")
    assert code == 0
    assert "heun" in out
    assert "c0/result.json" in err


@pytest.mark.parametrize("kind", ["table", "csv", "json"])
def test_a_reader_that_leaves_early_is_no_error(kind: str, runs: Path) -> None:
    for i in range(300):
        write(runs, "f0", f"many{i}", note="x" * 2000)
    command = [sys.executable, "-m", "diffsweep", "results", "--format", kind, "--limit", "0", "--sort", "note"]
    # Unbuffered, Python itself does not notice.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""


def test_commands_answer_without_heavy_imports(runs: Path) -> None:
    for words in (["results"], ["results", "--format", "csv"], ["gc"]):
        names, _ = processes.loaded("command", *words)
        assert not names & {"torch", "numpy", "pandas", "pyarrow", "hydra", "omegaconf", "lightning", "wandb"}


# What may be deleted, and what never.


def aged(path: Path, seconds: float) -> None:
    """Everything at and below `path` was last changed so long ago."""
    for one in [path, *path.rglob("*")]:
        os.utime(one, (time.time() - seconds, time.time() - seconds), follow_symlinks=False)


def stopped(runs: Path, name: str = "lost", seconds: float = 30 * garbage.DAY) -> Fit:
    """A training that was interrupted long ago, with a checkpoint of 1000 bytes."""
    fit = Fit(runs / "fits" / name)
    with Lease(fit.folder).acquire():
        fit.write_status("waiting", step=3, steps=20, reason="interrupted")
        fit.checkpoints.mkdir()
        (fit.checkpoints / "last.ckpt").write_bytes(b"x" * 1000)
        fit.cell("c").write_status("failed", reason="because")
    aged(fit.folder, seconds)
    return fit


def kinds(runs: Path, **options: Any) -> dict[str, str]:
    return {one.path.relative_to(runs).as_posix(): one.kind for one in garbage.garbage(runs, **options)}


def everything(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_finished_is_never_garbage(run: Call, runs: Path) -> None:
    (runs / "fits/f1/done.json").write_text("{")
    write(runs, "undone", "c")
    aged(runs, 400 * garbage.DAY)
    before = everything(runs)
    assert run("gc", "--yes", "--older-than", "0") == (0, "nothing to free\n", "")
    assert everything(runs) == before


def test_garbage_is_listed_and_only_deleted_when_told(run: Call, runs: Path) -> None:
    fit = stopped(runs)
    spent = runs / "fits/f0/checkpoints/last.ckpt"
    spent.parent.mkdir()
    spent.write_bytes(b"x" * 5000)
    hidden = runs / "cache/.reference.host-1-abc.tmp.safetensors"
    hidden.parent.mkdir()
    hidden.write_bytes(b"x" * 70)
    fresh = runs / "cache/.reference.host-2-abc.tmp.safetensors"
    fresh.write_bytes(b"x")
    aged(hidden, 2 * garbage.HOUR)
    finished = everything(runs / "fits/f1")
    before = everything(runs)
    code, out, _ = run("gc")
    assert code == 0
    assert "--yes" in out
    for text in (str(fit.folder), "stopped at step 3 of 20: interrupted", str(spent), "5 kB", str(hidden), "70 B"):
        assert text in out
    assert str(fresh) not in out
    assert everything(runs) == before

    code, out, err = run("gc", "--yes")
    assert (code, err) == (0, "")
    gone = set(before) - set(everything(runs))
    assert {name for name in gone if not name.startswith("fits/lost")} == {
        spent.relative_to(runs).as_posix(),
        hidden.relative_to(runs).as_posix(),
    }
    freed = sum(len(before[name]) for name in gone)
    assert f"{garbage_table.size(freed)}  freed" in out
    assert everything(runs / "fits/f1") == finished
    assert sorted(path.name for path in fit.folder.iterdir()) == ["lease-000001.json", "lease-000002.json"]
    assert "ckpt" not in run("gc")[1]


def test_a_training_is_kept_while_young_or_planned(runs: Path) -> None:
    stopped(runs, seconds=3 * garbage.DAY)
    assert kinds(runs) == {}
    assert kinds(runs, older_than=2 * garbage.DAY) == {"fits/lost": "fit"}
    plan = runs / "sweeps/s/plan.json"
    plan.parent.mkdir(parents=True)
    plan.write_text(json.dumps({"tasks": [{"fit": "lost", "cell": "c"}]}))
    assert kinds(runs, older_than=0) == {}
    plan.write_text('{"tasks": [')
    with pytest.raises(ValueError, match=r"plan\.json is corrupt"):
        garbage.garbage(runs)
    plan.write_text('{"tasks": [3]}')
    with pytest.raises(ValueError, match=r"plan\.json is corrupt"):
        garbage.garbage(runs)


def test_nothing_is_garbage_where_somebody_is_at_work(runs: Path) -> None:
    fit = stopped(runs)
    (runs / "fits/f0/checkpoints").mkdir()
    (runs / "fits/f0/checkpoints/last.ckpt").write_bytes(b"x")
    half = runs / "fits/f0/cells/c0/.samples.host-1-abc.tmp.png"
    half.write_bytes(b"x")
    aged(runs, 30 * garbage.DAY)
    assert set(kinds(runs).values()) == {"fit", "checkpoint", "temporary"}
    with Lease(fit.folder).acquire(), Lease(runs / "fits/f0/cells/c0").acquire():
        # Also of a holder whose heart beats on a disk that shows old times.
        aged(runs, 30 * garbage.DAY)
        assert kinds(runs, older_than=0) == {}
    aged(runs, 30 * garbage.DAY)
    assert set(kinds(runs).values()) == {"fit", "checkpoint", "temporary"}


@pytest.mark.parametrize("happened", ["taken", "planned", "finished", "resumed", "evaluated"])
def test_what_comes_into_use_after_the_listing_is_kept(happened: str, runs: Path) -> None:
    fit = stopped(runs)
    (found,) = garbage.garbage(runs)
    held = None
    if happened == "taken":
        held = Lease(fit.folder).acquire()
    elif happened == "planned":
        (runs / "sweeps/s").mkdir(parents=True)
        (runs / "sweeps/s/plan.json").write_text(json.dumps({"tasks": [{"fit": "lost", "cell": "c"}]}))
    elif happened == "finished":
        fit.write_done({"fit": "lost"})
    elif happened == "resumed":
        (fit.checkpoints / "last.ckpt").write_bytes(b"further")
    else:
        held = Lease(fit.cell("c").folder).acquire()
    before = everything(fit.folder)
    if happened != "resumed":
        aged(fit.folder, 30 * garbage.DAY)
    try:
        assert garbage.free(found, runs) == 0
    finally:
        if held:
            held.release()
    after = everything(fit.folder)
    assert {name: text for name, text in after.items() if "lease" not in name} == {
        name: text for name, text in before.items() if "lease" not in name
    }


def test_a_training_that_starts_while_it_is_freed_waits_and_then_starts_anew(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = stopped(runs)
    (found,) = garbage.garbage(runs)
    started: list[subprocess.Popen[str]] = []
    remove = garbage._unlink

    def slowly(path: Path) -> int:
        if not started:
            started.append(processes.start("wait_for_lease", fit.folder))
            assert processes.line(started[0]) == "waiting"
        return remove(path)

    monkeypatch.setattr(garbage, "_unlink", slowly)
    assert garbage.free(found, runs) > 1000
    out, _ = started[0].communicate(timeout=60)
    assert (out, started[0].returncode) == ("True\n", 0)


def test_a_holder_elsewhere_is_watched_before_it_is_taken_for_dead(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = stopped(runs)
    lease = fit.folder / "lease-000001.json"
    elsewhere = replace(Process.current(), host="another").asdict() | {"token": "t", "released": False}
    lease.write_text(json.dumps(elsewhere))
    aged(fit.folder, 30 * garbage.DAY)
    assert kinds(runs, older_than=0) == {}, "nothing tells that it is dead"
    (found,) = garbage.garbage(runs)
    monkeypatch.setattr(garbage, "Lease", lambda folder: Lease(folder, patience=0.6, heartbeat=0.1))
    started = time.monotonic()
    assert garbage.free(found, runs) > 1000
    assert time.monotonic() - started > 0.5


def test_old_leases_go_and_the_highest_stays(run: Call, runs: Path) -> None:
    cell = runs / "fits/f0/cells/c0"
    for _ in range(3):
        Lease(cell).acquire().release()
    assert kinds(runs) == {}
    aged(cell, 2 * garbage.HOUR)
    assert run("gc", "--yes")[0] == 0
    assert [path.name for path in cell.glob("lease*")] == ["lease-000003.json"]
    assert Lease(cell).acquire().number == 4


def test_what_the_disk_refuses_is_said(run: Call, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(runs)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(garbage, "_unlink", refuse)
    code, out, err = run("gc", "--yes")
    assert code == 1
    assert "0 B  freed" in out
    assert "Permission denied" in err


def test_only_what_a_training_writes_is_freed(run: Call, runs: Path) -> None:
    fit = stopped(runs)
    (fit.folder / "wandb" / "offline-run-1-lost").mkdir(parents=True)
    (fit.folder / "wandb" / "offline-run-1-lost" / "run.wandb").write_bytes(b"x")
    (fit.folder / "wandb" / "latest-run").symlink_to("offline-run-1-lost")
    mine = {fit.folder / "notes.md": "why it diverged", fit.folder / "checkpoints" / "exported.onnx": "x"}
    mine |= {runs / "fits" / "pictures" / "of.png": "x", runs / "cache" / ".mine.tmp": "x"}
    for path, text in mine.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    aged(runs, 30 * garbage.DAY)
    code, out, err = run("gc", "--yes")
    assert (code, err) == (0, "")
    assert not any(str(path) in out for path in mine)
    assert {path: path.read_text() for path in mine} == mine
    left = {path.relative_to(fit.folder).as_posix() for path in fit.folder.rglob("*")}
    assert {name for name in left if "lease" not in name} == {"notes.md", "checkpoints", "checkpoints/exported.onnx"}
    assert "fit" not in kinds(runs).values()


@pytest.mark.parametrize("linked", ["fits", "fits/lost", "fits/lost/checkpoints", "fits/f0/checkpoints", "cache"])
def test_no_link_is_followed(linked: str, run: Call, runs: Path, tmp_path: Path) -> None:
    """What lies behind a link belongs to somebody else, or is freed where it lies."""
    stopped(runs)
    (runs / "fits/f0/checkpoints").mkdir()
    (runs / "fits/f0/checkpoints/last.ckpt").write_bytes(b"x")
    (runs / "cache").mkdir()
    (runs / "cache" / ".reference.host-1-abc.tmp.safetensors").write_bytes(b"x")
    elsewhere = tmp_path / "elsewhere"
    (runs / linked).rename(elsewhere)
    (runs / linked).symlink_to(elsewhere)
    aged(tmp_path, 30 * garbage.DAY)
    before = everything(elsewhere)
    assert run("gc", "--yes")[0] == 0
    assert everything(elsewhere) == before
    assert (runs / linked).is_symlink()


def test_a_link_that_appears_after_the_listing_is_not_followed(runs: Path, tmp_path: Path) -> None:
    fit = stopped(runs)
    found = garbage.garbage(runs)
    fit.folder.rename(tmp_path / "elsewhere")
    fit.folder.symlink_to(tmp_path / "elsewhere")
    before = everything(tmp_path / "elsewhere")
    assert [garbage.free(one, runs) for one in found] == [0]
    assert everything(tmp_path / "elsewhere") == before


def test_a_folder_of_runs_may_itself_be_a_link(run: Call, runs: Path, tmp_path: Path) -> None:
    stopped(runs)
    runs.rename(tmp_path / "scratch")
    runs.symlink_to(tmp_path / "scratch")
    assert run("gc", "--yes")[0] == 0
    assert not (tmp_path / "scratch/fits/lost/checkpoints").exists()


def test_a_search_keeps_what_it_may_resume_and_not_what_it_has_pruned(run: Call, runs: Path) -> None:
    for name, reason in (("waits", "interrupted"), ("pruned", "pruned"), ("young", "pruned"), ("wanted", "pruned")):
        fit = stopped(runs, name)
        with Lease(fit.folder).acquire():
            fit.write_status("waiting", step=3, steps=20, reason=reason)
        aged(fit.folder, 60 if name == "young" else 2 * garbage.HOUR if reason == "pruned" else 30 * garbage.DAY)
    study, sweep = runs / "sweeps/night", runs / "sweeps/s"
    study.mkdir(parents=True)
    sweep.mkdir()
    (study / "search.json").write_text(json.dumps({"storage": ""}))
    trials = [{"user_attr": {"result": f"{runs}/fits/{name}/cells/c/result.json"}} for name in ("waits", "pruned")]
    (study / "journal.log").write_text("".join(json.dumps(trial) + "\n" for trial in trials))
    (sweep / "plan.json").write_text(json.dumps({"tasks": [{"fit": "wanted", "cell": "c"}]}))
    assert [name for name, kind in kinds(runs).items() if kind == "fit"] == ["fits/pruned"]
    assert "stopped at step 3 of 20: pruned" in run("gc", "--yes")[1]
    assert "fit" not in kinds(runs).values()
