"""What jobs of a cluster do in tests. Jobs cannot import this module: it is sent to them whole."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

cloudpickle.register_pickle_by_value(sys.modules[__name__])

LONG = 600


def at_once(path: Path) -> None:
    """Nothing need happen before."""


@dataclass(frozen=True)
class Record:
    """Writes the job's environment, and when it began and ended, to `path`; after `first(path)`."""

    path: Path
    first: Callable[[Path], object] = at_once

    def __call__(self) -> None:
        self.path.parent.mkdir(exist_ok=True, parents=True)
        begin = time.time()
        self.first(self.path)
        unfinished = self.path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(dict(os.environ, begin=begin, end=time.time())))
        unfinished.rename(self.path)


@dataclass(frozen=True)
class RecordOfEachTask:
    """As `Record`, one file for each task of a job in the folder `folder`, when the file `go` is there."""

    folder: Path
    go: Path

    def __call__(self) -> None:
        Record(self.folder / f"{os.environ['SLURM_PROCID']}.json", self._wait)()

    def _wait(self, path: Path) -> None:
        while not self.go.exists():
            time.sleep(0.05)


def wait_for_another(path: Path) -> None:
    """Wait until one more has come to this."""
    path.with_suffix(".begun").touch()
    while len(list(path.parent.glob("*.begun"))) < 2:
        time.sleep(0.05)


def wait_for_restart(path: Path) -> None:
    """Wait to be queued again, the first time."""
    if "SLURM_RESTART_COUNT" not in os.environ:
        path.with_suffix(".first").touch()
        time.sleep(LONG)


def take_a_second(path: Path) -> None:
    time.sleep(1)


def fail_after_a_while(path: Path) -> None:
    time.sleep(1.5)
    raise OSError("the disk")


@dataclass(frozen=True)
class Sleep:
    """Touches `begun`, if it is given, and sleeps until it is cancelled."""

    begun: Path | None = None

    def __call__(self) -> None:
        if self.begun is not None:
            self.begun.touch()
        time.sleep(LONG)


@dataclass(frozen=True)
class Exit:
    """Ends with an exit code."""

    code: int = 0

    def __call__(self) -> None:
        if self.code:
            raise SystemExit(self.code)


@dataclass(frozen=True)
class Resumes:
    """Sleeps until it is warned of its time limit, saves to `path`, and has nothing more to do the second time."""

    path: Path

    def __call__(self) -> None:
        if not self.path.exists():
            self.path.with_suffix(".begun").touch()
            time.sleep(LONG)

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        self.path.touch()
        return DelayedSubmission(self)
