"""Whole or absent, on real full and read-only disks, after real kills; and what is read is what was recorded."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import processes
from diffsweep.sweep.store.record import (
    CannotWriteError,
    Cell,
    Fit,
    Metrics,
    Run,
    atomic,
    provenance,
    read_json,
    read_metrics,
    write_atomic,
)
from diffsweep.sweep.store.result import Result
from diffsweep.sweep.store.signature import cell_signature, fit_signature


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return Fit(tmp_path / "fits" / "f0").cell("c0")


# ---- files


def test_write_and_replace(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.txt"
    write_atomic(path, "ä\n")
    assert path.read_bytes() == b"\xc3\xa4\n"
    write_atomic(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert list(path.parent.iterdir()) == [path]
    os.umask(mask := os.umask(0))
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "grid.png"
    write_atomic(path, "old")
    seen: list[Path] = []

    def fail() -> None:
        with atomic(path) as temporary:
            seen.append(temporary)
            temporary.write_text("half")
            raise RuntimeError("oops")

    with pytest.raises(RuntimeError, match="oops"):
        fail()
    assert seen[0].parent == tmp_path
    assert seen[0].suffix == ".png"
    assert seen[0].name.startswith(".")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_about_another_file_is_not_ours_to_explain(tmp_path: Path) -> None:
    def refused() -> None:
        raise PermissionError(13, "Permission denied", "/somewhere/else")

    with pytest.raises(PermissionError), atomic(tmp_path / "a"):
        refused()


def test_a_reader_never_sees_half_a_file_although_writers_are_killed(tmp_path: Path) -> None:
    path = tmp_path / "big"
    for _ in range(3):
        writer = processes.start("rewrite_file", path)
        assert processes.line(writer) == "go"
        seen, versions = set(), set[int]()
        while len(versions) < 30:
            if path.exists():
                versions.add(path.stat().st_mtime_ns)
                content = path.read_text()
                seen.add((len(content), len(set(content))))
        processes.end(writer)
        assert seen == {(300_000, 1)}
    assert {below.name for below in tmp_path.iterdir() if not below.name.startswith(".")} == {"big"}


def test_two_writers_of_one_file_do_not_collide(tmp_path: Path) -> None:
    with atomic(tmp_path / "a") as first, atomic(tmp_path / "a") as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert (tmp_path / "a").read_text() == "1"


def on_a_small_disk(folder: Path, mode: str) -> list[str]:
    if sys.platform != "linux" or shutil.which("unshare") is None:
        pytest.skip("needs Linux namespaces")
    program = shlex.join(processes.command("write_to_small_disk", folder, mode))
    mount = f"mount -t tmpfs -o size=100k none {folder} && exec {program}"
    unshared = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount]
    done = subprocess.run(unshared, capture_output=True, text=True, check=False)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"may not mount here: {done.stderr}")
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    plain, torch_like, metrics, files = on_a_small_disk(tmp_path, "rw")
    path = tmp_path / "fits" / "f0" / "done.json"
    for line in (plain, torch_like):
        assert line.startswith(f"cannot write to {path}: the disk is full: free some space or choose another folder")
    assert "metrics.jsonl: the disk is full" in metrics
    assert files == "['done.json', 'metrics.jsonl']"


def test_a_read_only_disk_is_one_line(tmp_path: Path) -> None:
    plain, torch_like, metrics, files = on_a_small_disk(tmp_path, "ro")
    for line in (plain, torch_like):
        assert line.endswith("done.json: read-only file system: choose another folder with paths.runs=...")
    assert "metrics.jsonl: read-only" in metrics
    assert files == "['done.json']"


def test_a_full_disk_without_namespaces(tmp_path: Path) -> None:
    done = processes.run("write_beyond_limit", tmp_path / "a")
    assert done.stdout.startswith(f"cannot write to {tmp_path / 'a'}: the file would be larger")
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    for path in (tmp_path / "runs" / "a", tmp_path / "runs" / "fits" / "a"):
        with pytest.raises(CannotWriteError, match="a part of this path is a file, not a folder: choose another"):
            write_atomic(path, "")
        assert read_json(path) is None


@pytest.mark.parametrize("content", ["", '{"a": 1', "[1]", "null", "\x00\x00"])
def test_a_corrupt_file_is_named_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} is corrupt .*: move it away") as error:
        read_json(path)
    assert "\n" not in str(error.value)


# ---- fit, cell, run


def test_paths_are_the_contract(tmp_path: Path) -> None:
    cfg = OmegaConf.create({"paths": {"runs": str(tmp_path)}, "lr": 0.1, "sampler": {"steps": 3}})
    run = Run.of(cfg, {"sampler": "ddim"})
    fit, cell = fit_signature(cfg), cell_signature(cfg)
    assert run.choices == {"sampler": "ddim"}
    assert (run.fit.signature, run.cell.signature) == (fit, cell)
    assert run.cell.fit == run.fit
    found = [run.fit.config_file, run.fit.status_file, run.fit.metrics_file, run.fit.checkpoints, run.fit.done_file]
    found += [run.cell.config_file, run.cell.status_file, run.cell.result_file, run.cell.samples_file]
    found += [run.cell.error_file]
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        *(f"fits/{fit}/{name}" for name in ("config.yaml", "status.json", "metrics.jsonl", "checkpoints", "done.json")),
        *(
            f"fits/{fit}/cells/{cell}/{name}"
            for name in ("config.yaml", "status.json", "result.json", "samples.png", "error.txt")
        ),
    ]
    assert list(tmp_path.iterdir()) == [], "naming a run must not create it"
    assert run.fit.cells() == []
    with pytest.raises(FrozenInstanceError):
        run.fit.folder = tmp_path  # type: ignore[misc]


def test_a_run_needs_a_folder() -> None:
    with pytest.raises(ValueError, match=r"^no folder for runs: set paths\.runs=\.\.\.$"):
        Run.of({"lr": 1})
    assert Run.of({"lr": 1}, runs="r").fit.folder.parent == Path("r/fits")


def test_config_is_frozen_resolved_and_signs_the_same(cell: Cell) -> None:
    cfg = OmegaConf.create({"size": 8, "half": "${size}", "text": "1e-3", "lr": 1e-5, "on": "yes", "none": None})
    cell.write_config(cfg)
    frozen = OmegaConf.load(cell.config_file)
    assert "${" not in cell.config_file.read_text()
    assert OmegaConf.to_container(frozen) == OmegaConf.to_container(cfg, resolve=True)
    assert fit_signature(frozen) == fit_signature(cfg)  # type: ignore[arg-type]


def test_status_says_who_and_when(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cell.status() is None
    monkeypatch.setenv("SLURM_JOB_ID", "812")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "810")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    cell.write_status("running", step=3)
    status = cell.status()
    assert status is not None
    assert (status["state"], status["step"], status["pid"], status["slurm_job"]) == ("running", 3, os.getpid(), "810_2")
    assert {"time", "host"} < set(status)
    with pytest.raises(ValueError, match="'finished' is unknown: choose one of running, waiting, done, failed"):
        cell.write_status("finished")  # type: ignore[arg-type]


def test_finished_means_a_readable_result(cell: Cell) -> None:
    assert not cell.done
    cell.write_status("done")
    assert not cell.done, "status.json is for people"
    cell.write_error(ValueError("x"))
    cell.write_result(Result.parse({"fd_digits": 1.5, "samples": 10, "git_commit": None, "status": "whatever"}))
    assert cell.done
    result = cell.result()
    assert result is not None
    assert result.flat() == {"fd_digits": 1.5, "samples": 10, "git_commit": None, "status": "done"}
    assert cell.error() is None, "the error is of the past"
    assert not cell.fit.done
    cell.fit.write_done({"steps": 5})
    assert cell.fit.result() == {"steps": 5, "status": "done"}
    assert cell.fit.cells() == [cell]
    for content in ('{"status": "do', '{"status": "failed"}', "{}"):
        cell.result_file.write_text(content)
        assert cell.result() is None
        assert not cell.done


def test_every_number_in_a_result_is_finite_or_null_with_a_reason(cell: Cell) -> None:
    cell.write_result(Result.parse({"fd": math.nan, "kid": -math.inf, "n": 3}))
    result = cell.result()
    assert result is not None
    assert result.flat() == {
        "fd": None,
        "kid": None,
        "n": 3,
        "fd_reason": "nan",
        "kid_reason": "-inf",
        "status": "done",
    }
    json.loads(cell.result_file.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize("value", [[1], {"a": 1}, (1,), Path("a"), b"x", object()])
def test_a_nested_value_is_refused(cell: Cell, value: Any) -> None:
    with pytest.raises(ValueError, match=r"^precision is a .*: a record is flat"):
        cell.write_result(Result.parse({"precision": value}))
    assert not cell.result_file.exists()


def test_an_error_begins_with_its_reason(cell: Cell) -> None:
    def broken() -> None:
        raise ValueError("two\n  lines")

    with pytest.raises(ValueError) as caught:
        broken()
    reason = cell.write_error(caught.value)
    assert reason == cell.error() == "ValueError: two lines"
    text = cell.error_file.read_text()
    assert text.startswith("ValueError: two lines\n\nTraceback")
    assert "in broken" in text
    assert cell.write_error(KeyboardInterrupt()) == "KeyboardInterrupt"


# ---- metrics


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.data())
def test_metrics_have_each_step_once_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, bursts: list[int], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("metrics") / "metrics.jsonl"
    step = 0
    for generation, burst in enumerate(bursts):
        with Metrics(path) as metrics:
            metrics.resume(step)
            for at in range(step, step + burst):
                metrics.write(at, loss=float(generation))
        if data.draw(st.booleans()):
            path.write_bytes(path.read_bytes()[: -data.draw(st.integers(1, 12))])
        lines = read_metrics(path)
        assert [line["step"] for line in lines] == list(range(len(lines)))
        step = data.draw(st.integers(0, len(lines)))
    with Metrics(path) as metrics:
        metrics.resume(step)
    assert [line["step"] for line in read_metrics(path)] == list(range(step))


def test_metrics_appear_at_once_and_go_on_behind_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 0, "loss": 1.0}\n{"step": 1, "lo')
    assert read_metrics(path) == [{"step": 0, "loss": 1.0}]
    metrics = Metrics(path)
    metrics.write(1, loss=math.nan, phase="warm")
    assert read_metrics(path) == [{"step": 0, "loss": 1.0}, {"step": 1, "loss": None, "phase": "warm"}]
    metrics.resume(1)
    metrics.write(1, loss=2.0)
    metrics.close()
    metrics.close()
    assert read_metrics(path)[1:] == [{"step": 1, "loss": 2.0}]


def test_metrics_survive_a_kill(tmp_path: Path) -> None:
    processes.run("log_metrics_and_die", tmp_path / "m.jsonl")
    assert len(read_metrics(tmp_path / "m.jsonl")) == 100


def test_a_corrupt_metrics_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"loss": 1}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl is corrupt in line 2"):
        read_metrics(path)
    assert read_metrics(tmp_path / "absent") == []


# ---- provenance


def git(folder: Path, *command: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *command], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_provenance_names_commit_and_dirt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside, clean, dirty, empty = (tmp_path / name for name in ("outside", "clean", "dirty", "empty"))
    for folder in (outside, clean, dirty, empty):
        folder.mkdir()
    for folder in (clean, dirty, empty):
        git(folder, "init", "-q")
    for folder in (clean, dirty):
        (folder / "code.py").write_text("1")
        git(folder, "add", ".")
        git(folder, "commit", "-qm", "x")
    (clean / "untracked").write_text("")
    (dirty / "code.py").write_text("2")
    (clean / "environment").mkdir()
    (clean / "environment" / "installed.py").write_text("")
    # As a hook of another repository would have it.
    monkeypatch.setenv("GIT_DIR", str(dirty / ".git"))

    def answer(folder: Path) -> tuple[Any, Any]:
        found = provenance(folder)
        return found["git_commit"], found["git_dirty"]

    monkeypatch.delenv("GIT_DIR")
    commits = git(clean, "rev-parse", "HEAD"), git(dirty, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(dirty / ".git"))
    assert answer(clean) == (commits[0], False)
    assert answer(dirty) == (commits[1], True)
    assert answer(outside) == (None, None)
    assert answer(empty) == (None, None)
    assert answer(clean / "environment") == (None, None), "installed inside somebody's checkout"


def test_provenance_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance(tmp_path)["git_commit"] is None


def test_provenance_is_flat_and_complete(cell: Cell) -> None:
    found = provenance()
    cell.write_result(Result.parse(found))
    assert {"git_commit", "git_dirty", "version_diffsweep", "version_torch", "version_python", "host"} < set(found)
    assert found["version_omegaconf"] == __import__("omegaconf").__version__


def test_provenance_knows_versions_without_loading_what_has_them() -> None:
    names, _ = processes.loaded("provenance")
    assert "diffsweep.sweep.store.record" in names
    assert not names & {"torch", "lightning", "wandb", "numpy"}
