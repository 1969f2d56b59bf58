"""The state of a sweep that goes on, as plain values for a page that is served."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from diffsweep.report.format import count, duration
from diffsweep.report.live import Names, standing, things
from diffsweep.report.page_data import curve
from diffsweep.sweep.plan.jobs import LaunchRecord
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.status.monitor import Monitor
from diffsweep.sweep.status.sweep_state import ItemState, SweepState

_ORDER = ("running", "waiting", "failed", "blocked", "missing")
_WORDS = {"blocked": "not run", "missing": "not begun or interrupted"}
# What runs is listed up to so many lines, failures up to so many reasons, logs up to so many of the newest.
_RUNNING, _REASONS, _LOGS = 50, 20, 200
# Bytes of the end of a log.
_TAIL = 2**14


class LiveSweep:
    """A sweep that is looked at again and again, by one thread at a time.

    Args:
        folder: of the sweep.

    Raises:
        ValueError: if its plan cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._finished: dict[str, ItemState] = {}
        self._stamp = (0, 0)
        self._replan()

    def _replan(self) -> None:
        """A search adds to its plan as it goes on."""
        status = (self.folder / "plan.json").stat()
        if (stamp := (status.st_mtime_ns, status.st_ino)) != self._stamp:
            self._stamp, self.plan = stamp, Plan.read(self.folder)
            self._names = Names.of(self.plan)
            self._monitor = Monitor(self.plan, finished=self._finished)

    def look(self) -> SweepState:
        """The state now. Raises OSError, ValueError if the plan cannot be read any more."""
        self._replan()
        return self._monitor.read()

    def values(self, look: SweepState) -> dict[str, Any]:
        """What a page shows of a state; `version` changes when results or failures do."""
        times = []
        if look.elapsed_seconds is not None:
            times.append(f"{duration(look.elapsed_seconds)} so far")
        if look.eta_seconds is not None:
            times.append(f"about {duration(look.eta_seconds)} to go{' and the evaluations' * look.eta_partial}")
        return {
            "name": self.plan.name,
            "standing": "; ".join([standing(look, self.plan), *times]),
            "over": look.over,
            "cells": len(look.cells),
            "done": look.counts["done"],
            "counts": f"{_counts('cell', look.counts)}; {_counts('training', look.fit_counts)}",
            "running": list(self._running(look))[:_RUNNING],
            "troubles": [*self._troubles(look)][:_REASONS],
            "curves": self._curves(look),
            "logs": [{"id": name, "name": name} for name in reversed(self.logs())],
            "version": version(look),
        }

    def _running(self, look: SweepState) -> Iterator[dict[str, Any]]:
        for what, names, items in (("training", self._names.fits, look.fits), ("cell", self._names.cells, look.cells)):
            for signature, item in items.items():
                if item.state == "running":
                    yield {
                        "what": what,
                        "name": names[signature],
                        "step": item.step,
                        "steps": item.steps,
                        "loss": item.loss,
                        "speed": item.images_per_second,
                        "eta": item.eta_seconds,
                        "stage": item.stage,
                        "where": " ".join(filter(None, (item.host, item.job))),
                    }

    def _troubles(self, look: SweepState) -> Iterator[str]:
        """Each reason once, with what it hit."""
        for hint, items in look.held_up.items():
            yield f"{things(len(items), 'job')} waiting: {hint}"
        found: dict[str, list[str]] = {}
        for names, items in ((self._names.fits, look.fits), (self._names.cells, look.cells)):
            for signature, item in items.items():
                if item.state == "failed":
                    found.setdefault(item.reason, []).append(names[signature])
        for reason, hit in found.items():
            more = f" and {count(len(hit) - 3)} more" if len(hit) > 3 else ""
            yield f"failed: {reason} ({', '.join(hit[:3])}{more})"

    def _curves(self, look: SweepState) -> list[dict[str, Any]]:
        going = [fit for fit, item in look.fits.items() if item.state != "done"][:_RUNNING]
        fits = {fit: self.plan.training(fit) for fit in going}
        found = [curve(fits[fit], self._names.fits[fit]) for fit in going]
        return [one for one in found if one is not None]

    def logs(self) -> list[str]:
        """The names of the jobs of the last launch that have a log."""
        return [job.id for job in self._jobs() if job.log and job.id and (self.folder / job.log).is_file()][-_LOGS:]

    def tail(self, job: str) -> str | None:
        """The end of a job's log; None if there is no such job, or no log of it."""
        for one in self._jobs():
            if one.id == job and one.log:
                with suppress(OSError), (self.folder / one.log).open("rb") as log:
                    log.seek(max(0, log.seek(0, 2) - _TAIL))
                    return log.read().decode(errors="replace")
        return None

    def _jobs(self) -> tuple[Any, ...]:
        with suppress(OSError, ValueError):
            launched = LaunchRecord.read(self.folder)
            return launched.jobs if launched is not None else ()
        return ()


def version(look: SweepState) -> str:
    """A word that is another one when a result or a failure has come in."""
    settled = [
        (signature, item.state, item.reason)
        for items in (look.fits, look.cells)
        for signature, item in items.items()
        if item.state in ("done", "failed", "blocked")
    ]
    return f"{zlib.crc32(json.dumps(settled).encode()):08x}"


def _counts(thing: str, counts: Counter[str]) -> str:
    others = (f"{count(counts[state])} {_WORDS.get(state, state)}" for state in _ORDER if counts[state])
    return ", ".join([f"{count(counts['done'])} of {things(counts.total(), thing)} done", *others])
