"""Reading many records: what is found is what the files say, whatever the copy says, and however they are damaged."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest

from diffsweep.sweep.store import query
from diffsweep.sweep.store.record import Fit
from diffsweep.sweep.store.result import Result
from processes import loaded


def write(runs: Path, fit: str, cell: str, **fields: Any) -> Path:
    record = Fit(runs / "fits" / fit).cell(cell)
    record.write_result(
        Result.parse({"cell": cell, "fit": fit, "sampler": "ddim", "nfe": 20, "fd_digits": 0.5} | fields)
    )
    return record.result_file


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for fit in "ab":
        for cell in range(3):
            write(tmp_path, fit, f"{fit}{cell}", nfe=5 * (cell + 1), sampler="heun" if cell else "ddim", sweep="first")
    return tmp_path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is kept for any number of records."""
    monkeypatch.setattr(query, "_WORTH", 1)


def copy(runs: Path) -> Path:
    return runs / "cache" / "results.json"


def found(runs: Path) -> list[str]:
    return [result.cell for result in query.results(runs)]


def flat(runs: Path | str, *arguments: Any, **options: Any) -> list[dict[str, Any]]:
    return [result.flat() for result in query.results(runs, *arguments, **options)]


def truth(runs: Path) -> list[dict[str, Any]]:
    """All whole results, read one by one."""
    paths = sorted(path for path in runs.glob("fits/*/cells/*/result.json") if path.parent.name[0] != ".")
    return [json.loads(path.read_text()) for path in paths if path.read_text() != "{"]


def test_all_results_are_found_in_order_as_their_files_say(runs: Path) -> None:
    assert flat(runs) == truth(runs)
    assert flat(str(runs)) == truth(runs)
    assert len(truth(runs)) == 6
    assert not copy(runs).exists(), "a few records need no copy"


def test_where_nothing_was_ever_run_nothing_is_found(tmp_path: Path) -> None:
    assert query.results(tmp_path / "absent") == query.fits(tmp_path / "absent") == []
    (tmp_path / "fits").write_text("a file")
    assert query.results(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [b"", b'{"cell": "a1", "sta', b"[]", b"3", b'{"status": "running"}', b"\xff\xfe\x00", b"{},{}", b"[" * 100_000],
    ids=repr,
)
def test_what_is_no_finished_result_is_left_out_and_counted(content: bytes, runs: Path) -> None:
    broken = runs / "fits/a/cells/a1/result.json"
    broken.write_bytes(content)
    unreadable: list[str] = []
    assert [result.cell for result in query.results(runs, unreadable)] == ["a0", "a2", "b0", "b1", "b2"]
    assert unreadable == [str(broken)]


def test_two_halves_are_not_taken_for_a_whole(runs: Path) -> None:
    (runs / "fits/a/cells/a1/result.json").write_text('{"status": "done"')
    (runs / "fits/a/cells/a2/result.json").write_text('"cell": "a2"}')
    unreadable: list[str] = []
    assert [result.cell for result in query.results(runs, unreadable)] == ["a0", "b0", "b1", "b2"]
    assert len(unreadable) == 2


def test_unfinished_cells_and_temporaries_are_no_results_and_no_errors(runs: Path) -> None:
    (runs / "fits/a/cells/.hidden").mkdir()
    (runs / "fits/a/cells/.hidden/result.json").write_text("{")
    (runs / "fits/a/cells/waiting").mkdir()
    (runs / "fits/a/cells/a1/.result.host-1-abc.tmp.json").write_text("{")
    (runs / "fits/empty").mkdir()
    unreadable: list[str] = []
    assert flat(runs, unreadable) == truth(runs)
    assert unreadable == []


@pytest.mark.usefixtures("small")
def test_the_copy_gives_exactly_what_the_files_give(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"a": 1, "b": 1.0, "c": True, "d": -0.0, "e": None, "f": "ü", "g": 0.1 + 0.2, "h": 2**60, "i": ""}
    for i, value in enumerate(values.values()):
        write(runs, "c", f"c{i}", **dict(list(values.items())[: i + 1]))
        for j in range(6):
            write(runs, "d", f"d{i}{j}", mixed=value)
    first = flat(runs)
    assert copy(runs).exists()
    reads: list[str] = []
    whole = query._read
    monkeypatch.setattr(query, "_read", lambda paths, *rest: reads.extend(paths) or whole(paths, *rest))
    again = flat(runs)
    assert reads == [], "a record that has not changed is not read again"
    assert json.dumps(again) == json.dumps(first) == json.dumps(truth(runs))


@pytest.mark.usefixtures("small")
def test_blocks_of_intervals_are_read_only_where_they_are_asked_for(runs: Path) -> None:
    write(runs, "b", "b9", fd_digits_low=0.1, fd_digits_jackknife="0.5 0.4")
    light = [{key: value for key, value in one.items() if key != "fd_digits_jackknife"} for one in truth(runs)]
    for _ in range(2):
        assert flat(runs, jackknife=True) == truth(runs)
        assert flat(runs) == light
    assert b"jackknife" not in copy(runs).read_bytes()


@pytest.mark.usefixtures("small")
def test_the_file_is_believed_before_the_copy(runs: Path) -> None:
    query.results(runs)
    stamp = (runs / "fits/a/cells/a0/result.json").stat()
    path = write(runs, "a", "a0", nfe=7, sampler="ddim", sweep="first")
    assert path.stat().st_size == stamp.st_size
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    (runs / "fits/a/cells/a1/result.json").unlink()
    (runs / "fits/b/cells/b0/result.json").write_text("{")
    write(runs, "b", "b9")
    assert flat(runs) == truth(runs)
    assert found(runs) == ["a0", "a2", "b1", "b2", "b9"]
    assert query.results(runs)[0].nfe == 7


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("damage", ["half", "flipped", "empty", "other", "folder", "nonsense"])
def test_a_damaged_copy_changes_nothing(damage: str, runs: Path) -> None:
    expected = flat(runs)
    whole = copy(runs).read_bytes()
    if damage == "folder":
        copy(runs).unlink()
        copy(runs).mkdir()
    elif damage == "nonsense":
        body = b'[{"keys": ["a"], "names": 3}]'
        copy(runs).write_bytes(b"%s %08x\n%s" % (query._FORMAT, zlib.crc32(body), body))
    else:
        changed = {"half": whole[:-40], "flipped": whole.replace(b"heun", b"huen"), "empty": b"", "other": b"{}\n"}
        copy(runs).write_bytes(changed[damage])
    assert flat(runs) == expected
    assert damage == "folder" or copy(runs).read_bytes() == whole, "and it is made anew"


@pytest.mark.usefixtures("small")
def test_a_copy_that_cannot_be_written_changes_nothing(runs: Path) -> None:
    (runs / "cache").write_text("a file in its way")
    assert flat(runs) == truth(runs)


def test_trainings_say_how_they_ended_or_what_they_do(runs: Path) -> None:
    Fit(runs / "fits/a").write_done({"fit": "a", "steps": 20})
    Fit(runs / "fits/a").write_status("done")
    Fit(runs / "fits/b").write_status("running", step=3)
    Fit(runs / "fits/c").write_status("failed", reason="because")
    (runs / "fits/c/done.json").write_text("{")
    (runs / "fits/silent").mkdir()
    unreadable: list[str] = []
    a, b, c = query.fits(runs, unreadable)
    assert (a["fit"], a["done"]["steps"], a["status"]) == ("a", 20, None)
    assert (b["fit"], b["done"], b["status"]["step"]) == ("b", None, 3)
    assert (c["fit"], c["done"], c["status"]["reason"]) == ("c", None, "because")
    assert unreadable == [str(runs / "fits/c/done.json")]


@pytest.mark.parametrize(
    ("filters", "cells"),
    [
        ([], "a0 a1 a2 b0 b1 b2"),
        (["sampler=ddim"], "a0 b0"),
        (["sampler=ddim,heun", "nfe=10.0"], "a1 b1"),
        (["sampler!=ddim", "fit=a"], "a1 a2"),
        (["nfe<10"], "a0 b0"),
        (["nfe<=10", "fit!=b"], "a0 a1"),
        (["nfe>10"], "a2 b2"),
        (["nfe >= 1e1", "fit=a"], "a1 a2"),
        (["nfe=5,15", "fit=a"], "a0 a2"),
        (["extra=null"], "a0 a1 a2 b0 b1"),
        (["extra!=null"], "b2"),
        (["extra=true"], "b2"),
        (["created>=2026-03"], "b2"),
        (["created>=2027"], ""),
        (["first"], "a0 a1 a2 b0 b1"),
        (["planned"], "a2 b0"),
        (["planned", "nfe>5"], "a2"),
        (["planned", "first"], "a0 a1 a2 b0 b1"),
        (["note=a=b"], "b2"),
    ],
    ids=" ".join,
)
def test_filters_select(filters: list[str], cells: str, runs: Path) -> None:
    write(runs, "b", "b2", nfe=15, sampler="heun", sweep=None, extra=True, created="2026-03-04T05:06:07Z", note="a=b")
    (runs / "sweeps/planned").mkdir(parents=True)
    tasks = [{"fit": "a", "cell": "a2"}, {"fit": "b", "cell": "b0"}, {"fit": "b", "cell": "b8"}]
    (runs / "sweeps/planned/plan.json").write_text(json.dumps({"tasks": tasks}))
    assert [one.cell for one in query.select(query.results(runs), filters, runs)] == cells.split()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("smapler=ddim", ["smapler=ddim", "sampler"]),
        ("fd_digit<0.5", ["fd_digits"]),
        ("nfe<many", ["many is no number"]),
        ("nfe<", ["no number"]),
        ("frist", ["frist is no sweep", "first"]),
        ("broken", ["plan.json is corrupt"]),
    ],
)
def test_a_filter_that_means_nothing_is_refused_in_one_line(word: str, said: list[str], runs: Path) -> None:
    (runs / "sweeps/broken").mkdir(parents=True)
    (runs / "sweeps/broken/plan.json").write_text('{"tasks": [3]}')
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        query.select(query.results(runs), [word], runs)
    for text in said:
        assert text in str(caught.value)


def test_reading_imports_next_to_nothing() -> None:
    names, _ = loaded("import", "diffsweep.sweep.store.query")
    assert "diffsweep.sweep.store.query" in names
    assert not names & {"omegaconf", "hydra", "rich", "pathlib", "socket"}
