"""One holder at a time: numbered lease files in a folder; whoever created the highest number holds the lease.

It works on shared disks (no locks, no database) and never compares the clocks of two hosts.

-   To acquire: see that the highest lease is released or its holder dead, create the next number exclusively, look
    again that no higher one appeared meanwhile. The highest file is never removed, so numbers only grow, and a
    process that slept through a takeover finds out.
-   The holder changes the time stamp of its file every `heartbeat` seconds. A waiter on another host takes the holder
    for dead once it has itself watched an unchanged stamp for `patience` seconds. On the same host it asks the
    system, and takes over at once.
-   To release: replace the own file by one that says so. There is no moment without a highest file.

Whoever waited must look again whether the work is still to be done. A holder checks `still_held()` before it commits:
between that check and the commit a sleep of more than `patience` remains possible, so commits must be renames of
whole files, which give the same when done twice.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple
from uuid import uuid4

from diffsweep.files import CannotWriteError, explained, make_folder, read_bytes, write_json
from diffsweep.sweep.store.process import Process

_NAME = re.compile(r"lease-(\d{6,})\.json")
# A shared disk may show a listing that is some seconds old: the file that it leads to is then still there to collide.
_KEPT = 4
_FIRST_PAUSE, _LAST_PAUSE = 0.2, 2.0


class Busy(RuntimeError):
    """Somebody else holds the lease; `holder` says who, None if that cannot be read."""

    def __init__(self, folder: Path, holder: Process | None) -> None:
        super().__init__(f"{folder} is being worked on by {holder or 'an unknown process'}")
        self.folder = folder
        self.holder = holder


class LeaseLostError(RuntimeError):
    """Another process took the lease while this one slept: it may write nothing more."""


@dataclass(frozen=True)
class Lease:
    """The right to work in `folder`: `with Lease(folder).acquire() as held: ...`.

    `heartbeat`: seconds between the holder's signs of life; `patience`: seconds without one after which waiters on
    other hosts take over. All processes must use the same two values. Raises ValueError for `patience` below three
    heartbeats, where a sign that is late would cost the lease.
    """

    folder: str | Path
    patience: float = 60.0
    heartbeat: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < 3 * self.heartbeat <= self.patience:
            raise ValueError(
                f"patience={self.patience} must be at least three times heartbeat={self.heartbeat}, both in seconds"
            )

    def acquire(
        self, wait: bool | float = True, on_wait: Callable[[Process | None], object] | None = None
    ) -> HeldLease:
        """Take the lease and hold it until `release` or the end of a `with` block.

        `wait`: True waits as long as it takes, False not at all, a number at most that many seconds. A dead holder
        on another host is only found out by waiting `patience` seconds. `on_wait` is called with the holder once for
        each holder waited for. Raises Busy if somebody else still holds it, CannotWriteError.
        """
        folder = Path(self.folder)
        make_folder(folder)
        end = time.monotonic() + (math.inf if wait is True else float(wait))
        watch = _Watch(self.patience)
        announced: int | None = None
        pause = _FIRST_PAUSE
        while True:
            last = _look(folder)
            if last is None or last.released or watch.dead(last):
                held = self._create(folder, last.number + 1 if last else 1)
                if held is not None:
                    return held
                continue
            if time.monotonic() >= end:
                raise Busy(folder, last.holder)
            if on_wait is not None and announced != last.number:
                on_wait(last.holder)
                announced = last.number
            time.sleep(min(pause, max(0.0, end - time.monotonic())))
            pause = min(1.5 * pause, _LAST_PAUSE, self.patience / 3)

    def holder(self) -> Process | None:
        """Who holds the lease, as far as one look tells; None for nobody or a holder known to be dead."""
        last = _look(Path(self.folder))
        if last is None or last.released or last.holder is None or last.holder.alive() is False:
            return None
        return last.holder

    def _create(self, folder: Path, number: int) -> HeldLease | None:
        """Take `number`; None if another process was faster."""
        path = _path(folder, number)
        token = uuid4().hex
        content = json.dumps(Process.current().asdict() | {"token": token, "released": False}).encode()
        with explained(folder):
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                return None
        held = HeldLease(path, token, self.heartbeat)
        try:
            with explained(folder):
                try:
                    os.write(descriptor, content)
                    os.fsync(descriptor)
                except OSError:
                    # Nobody may wait for a lease that was never held.
                    path.unlink(missing_ok=True)
                    raise
                finally:
                    os.close(descriptor)
            if _highest(folder) == number:
                held.start()
                _tidy(folder, number)
                return held
        except BaseException:
            held.release()
            raise
        # We slept between looking and creating, and the numbers have moved on: ours counts for nothing.
        path.unlink(missing_ok=True)
        return None


class HeldLease:
    """A lease while it is held, from `Lease.acquire`; a context manager that releases it."""

    def __init__(self, path: Path, token: str, heartbeat: float) -> None:
        self._path = path
        self._token = token
        self._heartbeat = heartbeat
        self._pid = os.getpid()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat {path}", daemon=True)

    @property
    def number(self) -> int:
        """How many times this folder's lease has been taken, this time included: a fencing token that only grows."""
        return _number(self._path)

    def start(self) -> None:
        """Begin to show signs of life."""
        self._thread.start()

    def still_held(self) -> bool:
        """Whether the lease is still ours: look before committing, as a process that slept may have lost it.

        Raises OSError while the disk cannot be reached.
        """
        # A forked child has a copy of this object, but the lease is its parent's.
        if self._stop.is_set() or os.getpid() != self._pid or _highest(self._path.parent) != self.number:
            return False
        last = _look(self._path.parent)
        return last is not None and last.token == self._token

    def release(self) -> None:
        """Let others have it; nothing happens if it is lost or released already."""
        if self._stop.is_set() or os.getpid() != self._pid:
            return
        try:
            if self.still_held():
                write_json(self._path, Process.current().asdict() | {"token": self._token, "released": True})
        except (CannotWriteError, OSError):
            # A full disk takes no new file, but lets an old one be overwritten.
            with suppress(OSError):
                self._overwrite()
        finally:
            self._stop.set()
            if self._thread.ident is not None and self._thread is not threading.current_thread():
                self._thread.join(timeout=1.0)

    def _overwrite(self) -> None:
        """Mark the lease file as released in place, in the space that it has."""
        with self._path.open("r+b") as stream:
            size = len(stream.read())
            content = json.dumps({"released": True}).encode()
            stream.seek(0)
            stream.write(content.ljust(size))

    def __enter__(self) -> HeldLease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _beat(self) -> None:
        while not self._stop.wait(self._heartbeat):
            # A disk that is away for a while is no reason to stop; a file that is gone is another's doing.
            with suppress(OSError):
                os.utime(self._path)


class _Look(NamedTuple):
    """The highest lease file as one look shows it; `stamp` differs between two looks if it was touched between."""

    number: int
    stamp: tuple[int, int, int]
    holder: Process | None
    token: str | None
    released: bool


class _Watch:
    """Judges whether a holder is dead, by what this process itself has seen since it began to look."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._seen: tuple[int, tuple[int, int, int]] | None = None
        self._time = 0.0
        self._quiet = 0.0

    def dead(self, last: _Look) -> bool:
        alive = last.holder.alive() if last.holder is not None else None
        if alive is not None:
            return not alive
        now = time.monotonic()
        if self._seen != (last.number, last.stamp):
            self._seen, self._quiet = (last.number, last.stamp), 0.0
        else:
            # Time that we slept through ourselves (a stopped process, a hanging disk) is no time watched.
            self._quiet += min(now - self._time, 2 * _LAST_PAUSE, self._patience / 3)
        self._time = now
        return self._quiet >= self._patience


def _look(folder: Path) -> _Look | None:
    """The highest lease in `folder`; None if there is none yet."""
    while True:
        number = _highest(folder)
        if number is None:
            return None
        path = _path(folder, number)
        try:
            # Opening the file makes a network disk ask its server: the attributes are then not old ones.
            content = read_bytes(path)
            status = path.stat()
        except FileNotFoundError:
            time.sleep(0.01)
            continue
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        try:
            record = json.loads(content)
        except (ValueError, RecursionError):
            record = None
        # Half written: its holder is between creating and writing, or was killed there.
        if not isinstance(record, dict):
            return _Look(number, stamp, None, None, False)
        return _Look(number, stamp, Process.parse(record), record.get("token"), record.get("released") is True)


def _highest(folder: Path) -> int | None:
    return max(_numbers(folder), default=None)


def _numbers(folder: Path) -> list[int]:
    try:
        return [int(match[1]) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    except FileNotFoundError:
        return []


def _number(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None, path
    return int(match[1])


def _path(folder: Path, number: int) -> Path:
    return folder / f"lease-{number:06d}.json"


def _tidy(folder: Path, number: int) -> None:
    for old in _numbers(folder):
        if old <= number - _KEPT:
            with suppress(OSError):
                _path(folder, old).unlink()
