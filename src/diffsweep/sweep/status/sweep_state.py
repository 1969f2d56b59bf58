"""The state of a sweep at one moment: of each fit and cell, of its launcher, and the time that is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from diffsweep.sweep.store.process import Process

StateName = Literal["done", "running", "waiting", "failed", "blocked", "missing"]
LauncherState = Literal["live", "detached", "elsewhere", "interrupted", "finished", "planned"]


@dataclass(frozen=True, slots=True)
class ItemState:
    """The state of one fit or cell.

    "waiting": its job is in a queue, or its fit is not trained yet; "blocked": not run, as its fit failed; "missing":
    no process works on it, as it was interrupted or never begun. `half` is half the width of the interval of `value`.
    `hint` says why something waits and what to do, if somebody must do something. What is unknown or does not apply is
    empty or None.
    """

    state: StateName
    step: int | None = None
    steps: int | None = None
    images_per_second: float | None = None
    eta_seconds: float | None = None
    loss: float | None = None
    stage: str = ""
    host: str = ""
    job: str = ""
    reason: str = ""
    hint: str = ""
    log: str = ""
    metric: str = ""
    value: float | None = None
    half: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class SweepState:
    """The state of a sweep at one moment: its trainings (`fits`, autoencoders first) and cells, by signature.

    `launcher`: "live"; "detached" (its SLURM jobs go on alone); "elsewhere" (its launcher, `process`, is on another
    host and nothing shows whether it lives); "interrupted"; "finished" (all jobs are over, some may have failed);
    "planned" (not launched so far). `eta_seconds` comes from the speeds known so far; with `eta_partial` it covers
    the trainings only, as no evaluation has been timed yet.
    """

    fits: Mapping[str, ItemState]
    cells: Mapping[str, ItemState]
    launcher: LauncherState
    process: Process | None = None
    elapsed_seconds: float | None = None
    eta_seconds: float | None = None
    eta_partial: bool = False

    @cached_property
    def counts(self) -> Counter[str]:
        """How many cells are in each state."""
        return Counter(item.state for item in self.cells.values())

    @cached_property
    def fit_counts(self) -> Counter[str]:
        """How many fits are in each state."""
        return Counter(item.state for item in self.fits.values())

    @cached_property
    def held_up(self) -> dict[str, list[ItemState]]:
        """What waits until somebody does something, by the hint that says why and what to do."""
        found: dict[str, list[ItemState]] = {}
        for item in (*self.fits.values(), *self.cells.values()):
            if item.hint and item.state == "waiting":
                found.setdefault(item.hint, []).append(item)
        return found

    @property
    def over(self) -> bool:
        """Whether no process works on this sweep any more, as far as can be told."""
        return self.launcher in ("finished", "interrupted") and not self.counts["running"] + self.fit_counts["running"]


def eta(fits: Iterable[ItemState], cells: Iterable[ItemState]) -> tuple[float | None, bool]:
    """Seconds until all is done with as many at once as now (None: unknown), and whether they leave out evaluations."""
    fits, cells = list(fits), list(cells)
    slowest, fit_left = _left(fits)
    _, cell_left = _left(cells)
    partial = cell_left is None
    at_once = sum(item.state == "running" for item in (*fits, *cells))
    if fit_left is None or not at_once or (partial and not fit_left):
        return None, False
    return max(slowest, (fit_left + (cell_left or 0.0)) / at_once), partial


def _left(items: Sequence[ItemState]) -> tuple[float, float | None]:
    """Seconds that the slowest running item still needs, and seconds of all in sequence (None: unknown)."""
    took = [item.seconds for item in items if item.seconds is not None]
    running = [item for item in items if item.state == "running"]
    known = [item.eta_seconds for item in running if item.eta_seconds is not None]
    if not took:
        took = [
            item.eta_seconds * item.steps / (item.steps - item.step)
            for item in running
            if item.eta_seconds is not None and item.steps and item.step is not None and item.step < item.steps
        ]
    unknown = sum(item.state == "waiting" for item in items) + len(running) - len(known)
    if not unknown:
        return max(known, default=0.0), sum(known)
    return max(known, default=0.0), sum(known) + unknown * sum(took) / len(took) if took else None
