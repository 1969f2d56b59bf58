"""A folder that several people and processes use: rights, disks that are full for a moment, leases that were lost."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import open_dict
from safetensors.torch import save_file

from diffsweep import files
from diffsweep.files import CannotWriteError, atomic
from diffsweep.report import status as sweeps_status
from diffsweep.runs import stages
from diffsweep.sweep.execute.retry import RetryPolicy
from diffsweep.sweep.plan.jobs import Job
from diffsweep.sweep.plan.plan import Plan, SignedConfig
from diffsweep.sweep.store.lease import Lease, LeaseLostError
from diffsweep.sweep.store.metrics_log import Metrics, read_metrics
from diffsweep.sweep.store.record import Fit, Run
from tiny import TINY

ROOT = Path(__file__).parent.parent


def composed(runs: Path, *overrides: str) -> tuple[object, Run]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", [*TINY, f"paths.runs={runs}", *overrides], return_hydra_config=True)
    choices = dict(cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, Run.of(cfg, choices)


@pytest.mark.parametrize(("umask", "rights"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_weights_have_the_rights_of_the_umask(tmp_path: Path, umask: int, rights: int) -> None:
    before = os.umask(umask)
    try:
        with atomic(tmp_path / "ema.safetensors") as temporary:
            save_file({"weight": torch.zeros(2)}, temporary)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "ema.safetensors").stat().st_mode) == rights


def full_disk(path: object, *args: object, **more: object) -> None:
    raise CannotWriteError(f"cannot write to {path}: the disk is full")


def test_a_disk_that_is_full_for_a_moment_does_not_end_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither its status nor a line of its numbers; and no line is lost."""
    cfg, run = composed(tmp_path, "training.steps=40", "trainer.log_every=5", "trainer.progress=false")
    write_status, told = Fit.write_status, []

    def refuse(self: Fit, state: str, **fields: object) -> None:
        if state == "running":
            told.append(state)
            full_disk(self.status_file)
        write_status(self, state, **fields)  # type: ignore[arg-type]

    write, writes = os.write, []

    def short_of_space(descriptor: int, content: bytes) -> int:
        if b'"loss"' in content and len(writes) < 3:
            writes.append(content)
            raise OSError(28, "No space left on device")
        return write(descriptor, content)

    monkeypatch.setattr(Fit, "write_status", refuse)
    monkeypatch.setattr("diffsweep.sweep.store.metrics_log.os.write", short_of_space)
    stages.train(cfg, run)  # type: ignore[arg-type]
    assert told
    assert len(writes) == 3
    assert run.fit.done
    assert [line["step"] for line in read_metrics(run.fit.metrics_file)] == [4, 9, 14, 19, 24, 29, 34, 39]
    assert capsys.readouterr().err.count("the disk is full") == 1


def test_a_disk_that_stays_full_ends_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(descriptor: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    metrics = Metrics(tmp_path / "metrics.jsonl")
    metrics.write(0, loss=1.0)
    monkeypatch.setattr("diffsweep.sweep.store.metrics_log.os.write", never)
    metrics.write(1, loss=1.0)
    with pytest.raises(CannotWriteError, match="the disk is full"):
        metrics.close()


def test_a_training_whose_lease_was_taken_stops_at_its_next_checkpoint_and_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg, run = composed(
        tmp_path,
        "training.steps=500",
        "trainer.checkpoint_seconds=0.01",
        "trainer.progress=false",
    )
    acquire = Lease.acquire

    def and_lose(self: Lease, *args: object, **more: object) -> object:
        """Held, and at once taken by another process, as after a long sleep."""
        held = acquire(self, *args, **more)  # type: ignore[arg-type]
        if Path(self.folder) == run.fit.folder:
            other = {"host": "elsewhere", "pid": 1, "start": 1.0, "boot": "b", "namespace": "n", "token": "x"}
            (run.fit.folder / f"lease-{held.number + 1:06d}.json").write_text(json.dumps(other))
        return held

    monkeypatch.setattr(Lease, "acquire", and_lose)
    with pytest.raises(LeaseLostError, match="was taken over by another process"):
        stages.train(cfg, run)  # type: ignore[arg-type]
    assert not run.fit.error_file.exists()
    assert not (run.fit.checkpoints / "last.ckpt").exists()
    assert not run.fit.done
    # Nor does the launcher call it a failure: somebody else is at it.
    fit = run.fit.signature
    plan = Plan(tmp_path / "sweeps/one", tmp_path).with_tasks([SignedConfig((), {}, {}, fit, "c")])
    assert RetryPolicy(plan, 0).remaining_job(Job("fit", fit, ("c",)), 1, {}) is None
    assert not run.fit.error_file.exists()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path)


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


BROKEN = {
    "fifo": fifo,
    "folder": folder,
    "loop": loop,
    "empty": text(""),
    "nested": text("[" * 200_000),
    "nested objects": text('{"a":' * 100_000),
    "list": text("[1, 2]"),
    "number keys": text('{"tasks": [1], "parts": [], "runs": 3, "jobs": 1, "kind": 2}'),
    "wrong types": text('{"tasks": {}, "parts": [], "runs": "x", "command": 1, "created": 2, "warnings": []}'),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("name", ["plan.json", "jobs.json", "status.json", "done.json", "result.json", "error.txt"])
def test_one_bad_record_takes_down_no_command_for_the_others(
    tmp_path: Path, name: str, broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for sweep in ("good", "bad"):
        signed = [SignedConfig((f"seed={sweep}",), {}, {}, f"fit-{sweep}", f"cell-{sweep}")]
        Plan(tmp_path / "sweeps" / sweep, tmp_path).with_tasks(signed).write()
        Fit(tmp_path / "fits" / f"fit-{sweep}").cell(f"cell-{sweep}").folder.mkdir(parents=True)
    fit = Fit(tmp_path / "fits" / "fit-bad")
    place = {
        "plan.json": tmp_path / "sweeps/bad",
        "jobs.json": tmp_path / "sweeps/bad",
        "result.json": fit.cell("cell-bad").folder,
    }.get(name, fit.folder)
    (place / name).unlink(missing_ok=True)
    BROKEN[broken](place / name)
    assert sweeps_status.status(tmp_path, None, False) == 0
    assert "good" in capsys.readouterr().out
    assert sweeps_status.status(tmp_path, "good", False) == 0


@pytest.mark.parametrize("broken", ["fifo", "folder", "loop", "nested"])
def test_what_cannot_be_read_is_not_called_corrupt_and_nothing_is_to_be_deleted(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "record.json"
    BROKEN[broken](path)
    with pytest.raises((ValueError, OSError)) as raised:
        files.read_json(path)
    assert "delete" not in str(raised.value)
    if broken != "nested":
        assert "corrupt" not in str(raised.value)
