"""The failure of a cell that was not run because its fit had failed: its reason, its error, how a record tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Records of versions before the field `blocked_by` have only the sentence.
_FORMER = "ValueError: not run: fit "


class BlockedError(ValueError):
    """A cell is not run, because the training of its fit has failed or never happened.

    `fit` is the fit's signature; status.json names it as `blocked_by`.
    """

    def __init__(self, fit: str, reason: str) -> None:
        super().__init__(blocked_reason(fit, reason))
        self.fit = fit


def blocked_reason(fit: str, reason: str) -> str:
    """The reason of a cell that was not run because `fit` failed for `reason`."""
    return f"not run: fit {fit} failed: {reason}"


def is_blocked(status: Mapping[str, Any] | None, failure: str) -> bool:
    """Whether a record with this status.json and this failure is of a cell that was not run because its fit failed."""
    return "blocked_by" in (status or {}) or failure.startswith(_FORMER)
