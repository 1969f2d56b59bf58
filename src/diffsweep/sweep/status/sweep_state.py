"""A sweep at one moment: how each of its fits and cells stands, and when all will be over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from diffsweep.sweep.store.process import Process

State = Literal["done", "running", "waiting", "failed", "blocked", "missing"]
Launcher = Literal["live", "detached", "elsewhere", "interrupted", "finished", "planned"]


@dataclass(frozen=True, slots=True)
class Item:
    """How one fit or cell stands.

    "waiting": in a queue or behind its fit; "blocked": not run, as its fit failed; "missing": nobody is at it, for it
    was interrupted or never begun. `half` is half the width of the interval of `value`. Empty or None is what is not
    known or does not apply.
    """

    state: State
    step: int | None = None
    steps: int | None = None
    images_per_second: float | None = None
    eta_seconds: float | None = None
    loss: float | None = None
    stage: str = ""
    host: str = ""
    job: str = ""
    reason: str = ""
    log: str = ""
    metric: str = ""
    value: float | None = None
    half: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Look:
    """A sweep at one moment: its fits and cells by signature, in the order of the plan.

    `launcher`: "live"; "detached" (its SLURM jobs go on alone); "elsewhere" (its launcher, `process`, is on another
    host and nothing shows whether it lives); "interrupted"; "finished" (all jobs are over, some may have failed);
    "planned" (not launched so far). `eta_seconds` comes from the speeds known so far; with `eta_partial` it covers
    the trainings only, as no evaluation has been timed yet.
    """

    fits: Mapping[str, Item]
    cells: Mapping[str, Item]
    launcher: Launcher
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

    @property
    def over(self) -> bool:
        """Whether nobody is at work on this sweep any more, as far as can be told."""
        return self.launcher in ("finished", "interrupted") and not self.counts["running"] + self.fit_counts["running"]


def blocked(fit: str, reason: str) -> str:
    """What is said of a cell that was not run, as `fit` failed for that reason."""
    return f"not run: fit {fit} failed: {reason}"


def eta(fits: Iterable[Item], cells: Iterable[Item]) -> tuple[float | None, bool]:
    """Seconds until all is done if as much runs at once as now, and whether evaluations are left out of that."""
    fits, cells = list(fits), list(cells)
    long, fit_left = _left(fits)
    _, cell_left = _left(cells)
    partial = cell_left is None
    at_once = sum(item.state == "running" for item in (*fits, *cells))
    if fit_left is None or not at_once or (partial and not fit_left):
        return None, False
    return max(long, (fit_left + (cell_left or 0.0)) / at_once), partial


def _left(items: Sequence[Item]) -> tuple[float, float | None]:
    """The longest time that a running one still needs, and the time of all one after another if that is known."""
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
