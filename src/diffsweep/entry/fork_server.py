"""The fork server of a sweep on this machine: it imports torch once and forks a process for every job."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffsweep.entry.job import SendEvent, run_job
from diffsweep.messages import say_traceback
from diffsweep.sweep.plan.jobs import Job

_PATIENCE = 60.0


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGHUP)


def fork_job(folder: Path, job: Job, *, threads: int | None, send: SendEvent, log: Path | None = None) -> int:
    """Start a job in a fork and return its pid."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent, pid = os.getpid(), os.fork()
    if pid:
        return pid
    code = 1
    try:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        # If the parent is killed, nothing else would stop this process.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)
        if os.getppid() != parent:
            # The parent was killed before prctl was called.
            os._exit(128 + signal.SIGTERM)
        if log is not None:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        # The other ranks of a local distributed training are started as this command line.
        sys.argv[1:] = ["run", str(folder), json.dumps(asdict(job))]
        code = run_job(folder, job, send)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException as error:
        say_traceback(error)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _import_everything() -> None:
    """Import what every job needs, and nothing that starts threads or touches a GPU."""
    import diffsweep.runs.stages  # noqa: F401

    # Objects made so far live in every fork: collecting them would only copy their pages.
    gc.collect()
    gc.freeze()


def serve(events: int) -> None:
    """Fork a job for every line on standard input; write to the descriptor `events` how they go on.

    A line is a JSON object: `{"start": id, "folder", "job", "threads", "environment", "log"}` or `{"signal": number,
    "id": id}`. An event is one too: `{"id", "cell", "done"}` or `{"id", "exit"}` (negative for a signal), and first of
    all `{"ready": pid}`. At the end of the input all jobs are stopped.
    """
    _import_everything()

    def send(event: dict[str, Any]) -> None:
        # A short line is written whole, even beside other writers. If nobody reads, standard input ends soon.
        with contextlib.suppress(OSError):
            os.write(events, (json.dumps(event) + "\n").encode())

    running: dict[int, str] = {}
    wake, signalled = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(signalled, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(signalled)
    waiting = selectors.DefaultSelector()
    waiting.register(0, selectors.EVENT_READ)
    waiting.register(wake, selectors.EVENT_READ)
    send({"ready": os.getpid()})
    buffer, end = b"", None
    while end is None or (running and time.monotonic() < end):
        for key, _ in waiting.select(timeout=1.0):
            if key.fileobj == wake:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)
                continue
            block = os.read(0, 65536)
            if not block:
                waiting.unregister(0)
                end = time.monotonic() + _PATIENCE
                _signal(list(running), signal.SIGTERM)
                break
            *lines, buffer = (buffer + block).split(b"\n")
            for line in lines:
                order = json.loads(line)
                if "start" in order:
                    running[_start(order, send)] = order["start"]
                else:
                    _signal([pid for pid, name in running.items() if name == order["id"]], order["signal"])
        with contextlib.suppress(ChildProcessError):
            while (over := os.waitpid(-1, os.WNOHANG))[0]:
                send({"id": running.pop(over[0], ""), "exit": os.waitstatus_to_exitcode(over[1])})
    _signal(list(running), signal.SIGKILL)


def _start(order: Mapping[str, Any], send: SendEvent) -> int:
    before = dict(os.environ)
    os.environ.update(order["environment"])
    try:
        return fork_job(
            Path(order["folder"]),
            Job.parse(order["job"]),
            threads=order["threads"],
            send=lambda event: send({"id": order["start"], **event}),
            log=Path(order["log"]),
        )
    finally:
        os.environ.clear()
        os.environ.update(before)


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
