"""Random kills over a whole sweep: in the end everything is there once, whole, and as if nothing had happened."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import brake
import forked_runs
from test_sweep import TINY, command, gone, last_sweep, resume, run, start

# Of so many kills one is that of the process that forks, and one that of the launcher; the others are of jobs.
ROUND = 10
FITS, CELLS, STEPS = 2, 3, 600
SWEEP = [
    "-m",
    *TINY,
    f"training.steps={STEPS}",
    "trainer.checkpoint_seconds=0.1",
    "schedule=cosine,rectified",
    "sampler=ddim,euler_ancestral,dpmpp_2m",
    "hydra.launcher.retries=1000",
    "hydra.launcher.cells_per_job=2",
    brake.LOSS,
]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1400)]


class Watched:
    """The files that declare something finished: each must appear once and stay as it is."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self.seen: dict[Path, tuple[int, int, bytes]] = {}

    def look(self) -> None:
        for pattern in ("runs/fits/*/done.json", "runs/fits/*/cells/*/result.json"):
            for path in self.cwd.glob(pattern):
                status = path.stat()
                now = status.st_ino, status.st_mtime_ns, path.read_bytes()
                assert self.seen.setdefault(path, now) == now, f"{path} was written twice"
                assert json.loads(now[2])["status"] == "done"
        assert all(path.exists() for path in self.seen)

    def progress(self) -> float:
        """Which share of the sweep's work is done, half of it trainings and half evaluations."""
        told = sum(path.read_text().count("\n") for path in self.cwd.glob("runs/fits/*/metrics.jsonl"))
        scored = sum(path.name == "result.json" for path in self.seen)
        return (told / (FITS * STEPS / 10) + scored / (FITS * CELLS)) / 2


def family(launcher: forked_runs.Run) -> tuple[psutil.Process | None, list[psutil.Process]]:
    """The process that forks, and the jobs."""
    with suppress(psutil.NoSuchProcess):
        for server in psutil.Process(launcher.pid).children():
            return server, server.children()
    return None, []


@pytest.mark.parametrize("number_of_kills", [2 * ROUND, pytest.param(10 * ROUND, marks=pytest.mark.whole)])
def test_random_kills_change_nothing(number_of_kills: int, tmp_path: Path) -> None:
    dice = random.Random(0)
    rough, calm = tmp_path / "rough", tmp_path / "calm"
    rough.mkdir()
    calm.mkdir()
    # Until all kills have happened, trainings take their time.
    slow = brake.environment(rough / "brake")
    (rough / "brake").touch()
    run(calm, command(*SWEEP), expect=0, **brake.environment(calm / "brake"))
    watched, kills = Watched(rough), Counter[str]()
    launcher = start(rough, command(*SWEEP), **slow)
    quiet, end = time.monotonic(), time.monotonic() + 1200
    try:
        # Until it is done; and if it is done before there were kills enough, that is a failure of this test.
        while True:
            assert time.monotonic() < end, kills
            time.sleep(dice.uniform(0.01, 0.1))
            watched.look()
            if launcher.poll() is not None:
                said = "".join(launcher.communicate())
                assert "Traceback" not in said
                if launcher.returncode == 0:
                    break
                assert launcher.returncode in (1, 143, -9), said
                launcher = start(rough, resume(), **slow)
                continue
            # Spread over all that is to be done, and when nothing moves, by the clock.
            if kills.total() >= number_of_kills:
                (rough / "brake").unlink(missing_ok=True)
            share = kills.total() / (1.2 * number_of_kills)
            if share >= 1 / 1.2 or (watched.progress() < share and time.monotonic() < quiet + 1):
                continue
            server, jobs = family(launcher)
            if server is None or not jobs:
                continue
            what = {ROUND // 2: "server", ROUND - 1: "launcher"}.get(kills.total() % ROUND, "job")
            victim = {"job": dice.choice(jobs), "server": server, "launcher": psutil.Process(launcher.pid)}[what]
            number = signal.SIGKILL if what == "server" else dice.choices((signal.SIGKILL, signal.SIGTERM), (19, 1))[0]
            with suppress(psutil.NoSuchProcess):
                victim.send_signal(number)
                quiet = time.monotonic()
                kills[f"{what} {number.name}"] += 1
            if what != "job":
                launcher.wait(300)
                end_of_jobs = time.monotonic() + 300
                while not gone(jobs):
                    assert time.monotonic() < end_of_jobs, "jobs outlive what started them"
                    time.sleep(0.02)
    finally:
        launcher.kill()
    assert kills.total() >= number_of_kills, f"only {kills}: the sweep is too short"
    logs = [path.read_text(errors="replace") for path in last_sweep(rough).glob("logs/fit-*.log")]
    assert sum(log.count("going on from its checkpoint") for log in logs) > FITS
    watched.look()
    assert len(watched.seen) == FITS + FITS * CELLS
    # Files that begin with a dot are what writers were at when they were killed; `diffsweep gc` frees them.
    for path in rough.glob("runs/**/[!.]*.json"):
        json.loads(path.read_text())
    for path in rough.glob("runs/**/[!.]*.jsonl"):
        steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
        assert steps == list(range(9, STEPS, 10))
    assert not list(rough.glob("runs/fits/**/error.txt"))
    for path in calm.glob("runs/fits/*/checkpoints/ema.safetensors"):
        assert (rough / path.relative_to(calm)).read_bytes() == path.read_bytes()
    for path in calm.glob("runs/fits/*/cells/*/result.json"):
        pair = [json.loads(one.read_text()) for one in (path, rough / path.relative_to(calm))]
        assert pair[0]["w2_points"] == pair[1]["w2_points"]
    assert (last_sweep(rough) / "table.csv").read_text().count("\n") == FITS * CELLS + 1
    # Nothing of it runs any more.
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            assert str(rough) not in process.cwd()
