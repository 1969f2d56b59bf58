"""Cells without a result, and why: hundreds may have failed for the same reason, which is then told once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffsweep.sweep.store.record import Cell


@dataclass(frozen=True)
class Failure:
    """A cell that has no result.

    Attributes:
        fit: signature of its training.
        cell: its own signature.
        overrides: of its command, joined by spaces.
        name: what distinguishes it from other cells; "" if that is not known.
        state: "failed"; "blocked" if its training failed; "missing" if it was interrupted or never begun.
        reason: in one line; "" if only its error.txt tells.
        log: path of a log of its job; "" if there is none.
    """

    fit: str = ""
    cell: str = ""
    overrides: str = ""
    name: str = ""
    state: Literal["failed", "blocked", "missing"] = "failed"
    reason: str = ""
    log: str = ""

    @property
    def title(self) -> str:
        """What people know it by."""
        return self.name or self.overrides or self.cell

    def error_file(self, runs: str | Path) -> Path:
        """Where its traceback lies, if it has one; `runs` is the folder of runs."""
        return Cell.of(self, runs).error_file


def by_reason(failures: Iterable[Failure], runs: str | Path) -> dict[str, list[Failure]]:
    """Failures by their reason; where they do not tell it, their error.txt below the folder `runs` does."""
    groups: dict[str, list[Failure]] = {}
    for failure in failures:
        reason = failure.reason or Cell.of(failure, runs).error() or "no reason was recorded"
        groups.setdefault(reason, []).append(failure)
    return groups
