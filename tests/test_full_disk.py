"""Sweeps on a disk that becomes full: every failure is told, and the same command goes on once there is space."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import brake
import forked_runs
from tiny import TINY

ROOT = Path(__file__).parent.parent
PATIENCE = 300.0
SWEEP = [str(ROOT / "train.py"), "-m", *TINY, "training.steps=600", brake.LOSS, "seed=1,2"]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40M", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def wait_for(true: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def full(file: Path) -> Iterator[None]:
    """Keep the disk of `file` full: what others give back is taken at once."""
    end = threading.Event()

    def fill() -> None:
        with file.open("wb", buffering=0) as stream:
            while not end.is_set():
                try:
                    stream.write(bytes(2**20))
                except OSError:
                    with suppress(OSError):
                        stream.write(bytes(2**12))
                    end.wait(0.005)

    filling = threading.Thread(target=fill)
    filling.start()
    wait_for(lambda: shutil.disk_usage(file.parent).free == 0)
    try:
        yield
    finally:
        end.set()
        filling.join()
        file.unlink()


def environment(stop: Path) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **brake.environment(stop)}


def sweep(disk: Path, stop: Path, *words: str) -> forked_runs.Run:
    runs = [f"paths.runs={disk}/runs", f"paths.cache={disk.parent}/cache"]
    return forked_runs.Run([*SWEEP, *runs, *words], disk.parent, environment(stop))


def test_a_sweep_whose_disk_becomes_full_fails_and_says_so_and_the_same_command_goes_on(disk: Path) -> None:
    stop = disk.parent / "brake"
    stop.touch()
    launcher = sweep(disk, stop, "trainer.checkpoint_seconds=0.2")
    wait_for(lambda: len(list(disk.glob("runs/fits/*/checkpoints/last.ckpt"))) == 2)
    with full(disk / "filling"):
        stop.unlink()
        _, said = launcher.communicate(timeout=PATIENCE)
    assert launcher.returncode == 1, said
    assert "the disk is full" in said
    assert "Traceback" not in said
    again = sweep(disk, stop)
    _, said = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, said
    assert len(list(disk.glob("runs/fits/*/cells/*/result.json"))) == 2
