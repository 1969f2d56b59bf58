"""Real processes fight for one lease: never two holders, never a lost one, and a holder that slept finds out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import processes
from diffsweep.files import CannotWriteError
from diffsweep.sweep.store import lease as lease_module
from diffsweep.sweep.store.lease import Busy, Lease
from diffsweep.sweep.store.process import Process

Hold = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Hold]:
    started: list[subprocess.Popen[str]] = []

    def hold(host: str = "") -> subprocess.Popen[str]:
        process = processes.start("hold_lease", tmp_path, "--patience=1.5", "--heartbeat=0.2", f"--host={host}")
        started.append(process)
        assert processes.line(process) == str(process.pid)
        return process

    yield hold
    for process in started:
        processes.end(process)


def fake(folder: Path, host: str = "elsewhere", number: int = 1) -> Path:
    """A lease held by a process on another host."""
    path = folder / f"lease-{number:06d}.json"
    record = Process.current().asdict() | {"host": host, "token": "other", "released": False}
    path.write_text(json.dumps(record))
    return path


def test_never_two_holders(tmp_path: Path) -> None:
    rounds = 30
    racers = [processes.start("race_for_lease", tmp_path, str(rounds), str(seed)) for seed in range(6)]
    outputs = [racer.communicate(timeout=300)[0] for racer in racers]
    assert outputs == [""] * 6
    assert [racer.returncode for racer in racers] == [0, -9, 0, -9, 0, -9]
    numbers = [int(line) for line in (tmp_path / "log").read_text().split()]
    assert len(numbers) == 6 * rounds
    assert numbers == sorted(set(numbers)), "a number was held twice, or they did not only grow"


def test_a_number_too_late_is_no_lease(tmp_path: Path) -> None:
    # We looked when 3 was the highest, slept, and meanwhile 4 to 7 came and went.
    fake(tmp_path, number=7)
    assert Lease(tmp_path)._create(tmp_path, 4) is None
    assert [path.name for path in tmp_path.iterdir()] == ["lease-000007.json"]


def test_a_number_that_is_taken_is_no_lease(tmp_path: Path) -> None:
    before = fake(tmp_path, number=4).read_text()
    assert Lease(tmp_path)._create(tmp_path, 4) is None
    assert (tmp_path / "lease-000004.json").read_text() == before


def test_released_at_once(tmp_path: Path) -> None:
    for number in range(1, 9):
        with Lease(tmp_path).acquire(wait=False) as held:
            assert held.number == number
            assert held.still_held()
            with pytest.raises(Busy, match=f"process {os.getpid()} on "):
                Lease(tmp_path).acquire(wait=False)
        assert not held.still_held()
    assert Lease(tmp_path).holder() is None
    assert len(list(tmp_path.iterdir())) == lease_module._KEPT


def test_release_never_leaves_a_gap(tmp_path: Path) -> None:
    # The highest file says "released"; were it removed, the number could be held a second time.
    Lease(tmp_path).acquire().release()
    assert json.loads((tmp_path / "lease-000001.json").read_text())["released"] is True


def test_killed_holder_on_this_host_is_replaced_at_once(tmp_path: Path, holder: Hold) -> None:
    process = holder()
    with pytest.raises(Busy) as busy:
        Lease(tmp_path).acquire(wait=False)
    assert busy.value.holder is not None
    assert busy.value.holder.pid == process.pid
    process.kill()
    # Not waited for: a dead process that its parent has not reaped must count as dead, too.
    begin = time.monotonic()
    with Lease(tmp_path, patience=120).acquire() as held:
        assert held.number == 2
    assert time.monotonic() - begin < 60


def test_a_recycled_pid_is_not_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "lease-000001.json"
    me = Process.current()
    path.write_text(json.dumps(me.asdict() | {"start": me.start - 1, "token": "x", "released": False}))
    Lease(tmp_path).acquire(wait=False).release()


def test_silent_holder_elsewhere_is_replaced_after_patience_and_not_before(tmp_path: Path) -> None:
    fake(tmp_path)
    lease = Lease(tmp_path, patience=1.5, heartbeat=0.2)
    with pytest.raises(Busy):
        lease.acquire(wait=1.0)
    waited_for: list[Process | None] = []
    begin = time.monotonic()
    with lease.acquire(on_wait=waited_for.append):
        waited = time.monotonic() - begin
    assert waited >= 1.5
    assert [holder.host for holder in waited_for if holder] == ["elsewhere"]


def test_only_silence_that_was_watched_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(lease_module.time, "monotonic", lambda: now)
    watch = lease_module._Watch(60)

    def dead_after(seconds: float, stamp: int) -> bool:
        nonlocal now
        now += seconds
        return watch.dead(lease_module._Look(1, (stamp, 0, 0), None, None, False))

    for second in range(0, 600, 2):
        assert not dead_after(2, stamp=second // 50)
    assert not dead_after(1000, stamp=598 // 50), "we slept, which proves nothing about the holder"
    verdicts = [dead_after(2, stamp=13) for _ in range(40)]
    assert verdicts.index(True) == 30


def test_half_written_lease_counts_until_patience_is_over(tmp_path: Path) -> None:
    (tmp_path / "lease-000001.json").write_text('{"host": "els')
    lease = Lease(tmp_path, patience=1.5, heartbeat=0.2)
    with pytest.raises(Busy, match="unknown process"):
        lease.acquire(wait=1.0)
    lease.acquire(wait=60.0).release()


def test_beating_holder_elsewhere_is_never_replaced_whatever_its_clock_says(tmp_path: Path) -> None:
    path = fake(tmp_path)
    stop = threading.Event()

    def beat() -> None:
        stamp = 4_000_000_000.0
        while not stop.wait(0.2):
            stamp -= 7
            os.utime(path, (stamp, stamp))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(Busy):
            Lease(tmp_path, patience=1.2, heartbeat=0.2).acquire(wait=4.0)
    finally:
        stop.set()
        thread.join()


def test_the_holder_beats(tmp_path: Path, holder: Hold) -> None:
    holder("elsewhere")
    with pytest.raises(Busy):
        Lease(tmp_path, patience=1.5, heartbeat=0.2).acquire(wait=4.0)


def test_a_holder_that_slept_notices(tmp_path: Path, holder: Hold) -> None:
    process = holder("elsewhere")
    os.kill(process.pid, signal.SIGSTOP)
    with Lease(tmp_path, patience=1.5, heartbeat=0.2).acquire(wait=60.0) as held:
        os.kill(process.pid, signal.SIGCONT)
        assert process.communicate("\n", timeout=60)[0] == "lost\n"
        assert held.still_held(), "the late release of the old holder took our lease"
        with pytest.raises(Busy):
            Lease(tmp_path).acquire(wait=False)


def test_holder_notices_that_the_folder_was_emptied(tmp_path: Path) -> None:
    with Lease(tmp_path).acquire() as held:
        (tmp_path / "lease-000001.json").unlink()
        assert not held.still_held()
        fake(tmp_path)
        assert not held.still_held(), "the number is ours, but the file is another's"
    assert json.loads((tmp_path / "lease-000001.json").read_text())["released"] is False


def test_a_forked_child_does_not_hold(tmp_path: Path) -> None:
    with Lease(tmp_path).acquire() as held:
        if (child := os.fork()) == 0:
            held.release()
            os._exit(held.still_held())
        assert os.waitpid(child, 0)[1] == 0
        assert held.still_held()


def test_waiting_can_be_interrupted(tmp_path: Path) -> None:
    before = fake(tmp_path).read_text()
    process = subprocess.Popen(
        processes.command("wait_for_lease", tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert processes.line(process) == "waiting"
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert [path.read_text() for path in tmp_path.iterdir()] == [before]


def test_release_on_a_full_disk_lets_others_in_after_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise CannotWriteError("full")

    lease = Lease(tmp_path, patience=0.9, heartbeat=0.2)
    held = lease.acquire()
    monkeypatch.setattr(lease_module, "write_json", full)
    held.release()
    monkeypatch.undo()
    lease.acquire(wait=60.0).release()


def test_patience_must_leave_room_for_a_late_heartbeat(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"patience=10 must be at least three times heartbeat=5"):
        Lease(tmp_path, patience=10, heartbeat=5)
