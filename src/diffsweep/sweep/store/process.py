"""Which process is this, and does that one still live? Answers that hold across reboots, containers and clock steps."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any


def now() -> str:
    """The moment, as ISO 8601 text in UTC, to the second. For people only: clocks of two hosts are never compared."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def slurm_job() -> str | None:
    """The SLURM job that this process belongs to, as `squeue` writes it (`812`, or `812_3` in an array), or None."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        return f"{array}_{task}"
    return os.environ.get("SLURM_JOB_ID") or None


@dataclass(frozen=True)
class Process:
    """One process, named so that no other one, ever, anywhere, is mistaken for it.

    `start` is the start time in the units of the system (clock ticks since boot on Linux); `boot` and `namespace`
    name the running kernel and the process's pid namespace, empty where the system does not say.
    """

    host: str
    pid: int
    start: float
    boot: str
    namespace: str
    slurm_job: str | None
    time: str

    @classmethod
    def current(cls) -> Process:
        """Whoever calls."""
        pid = os.getpid()
        start = _start(pid)
        assert start is not None, "we are alive"
        return cls(socket.gethostname(), pid, start, *_kernel(), slurm_job=slurm_job(), time=now())

    @classmethod
    def parse(cls, record: dict[str, Any]) -> Process | None:
        """The process that `record` (from `asdict`) describes; None if it describes none."""
        try:
            return cls(
                host=str(record["host"]),
                pid=int(record["pid"]),
                start=float(record["start"]),
                boot=str(record["boot"]),
                namespace=str(record["namespace"]),
                slurm_job=record.get("slurm_job"),
                time=str(record.get("time", "")),
            )
        except (KeyError, TypeError, ValueError):
            return None

    def is_current(self) -> bool:
        """Whether this is the process that calls."""
        me = Process.current()
        return (self.host, self.boot, self.namespace, self.pid, self.start) == (
            me.host,
            me.boot,
            me.namespace,
            me.pid,
            me.start,
        )

    def asdict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self)

    def alive(self) -> bool | None:
        """Whether it lives; None if that cannot be told from here (another host, boot or container)."""
        here = (socket.gethostname(), *_kernel())
        if not all(here) or (self.host, self.boot, self.namespace) != here:
            return None
        # Ticks since boot are exact; elsewhere start times are seconds, which may move when the clock is set.
        tolerance = 0.0 if _LINUX else 5.0
        try:
            start = _start(self.pid)
        except PermissionError:
            return None
        return start is not None and abs(start - self.start) <= tolerance

    def __str__(self) -> str:
        job = f", SLURM job {self.slurm_job}" if self.slurm_job else ""
        return f"process {self.pid} on {self.host}{job}, since {self.time}"


def import_from(folder: str | Path) -> None:
    """Make the modules in `folder`, a user's own, importable by this process.

    What is installed goes first: a file of the user's that happens to be called like a library breaks nothing.
    """
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends the block as an exception does (SystemExit, 143), so that its processes are stopped."""

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:
        # Not the main thread, where signals do not arrive.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


_LINUX = Path("/proc/self/stat").exists()


@lru_cache(maxsize=1)
def _kernel() -> tuple[str, str]:
    if not _LINUX:
        import psutil

        return str(int(psutil.boot_time())), "none"
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return boot, str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return "", ""


def _start(pid: int) -> float | None:
    """When process `pid` started, None if it is gone; one that is dead but not yet reaped counts as gone.

    Raises PermissionError if it is there, but hidden from this user.
    """
    if not _LINUX:
        import psutil

        try:
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
        except psutil.AccessDenied as error:
            raise PermissionError from error
        except psutil.Error:
            return None
    try:
        # psutil's create_time moves when the wall clock is set, and a live holder would then look dead.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        # /proc may hide the processes of other users (hidepid): a signal that sends nothing tells gone from hidden.
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        raise PermissionError(f"process {pid} is hidden") from None
    return None if fields[0] in "ZXx" else float(fields[19])
