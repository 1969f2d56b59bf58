"""The failure of a stage that was not run because one before it had failed: reason, error, how a record tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Records of versions before the field `blocked_by` have only the sentence.
_FORMER = "ValueError: not run: fit "


class BlockedError(ValueError):
    """A stage is not run, because a training that it needs has failed or never happened.

    `needed` is that training's signature; status.json names it as `blocked_by`.

    Args:
        needed: That signature.
        reason: Why it failed.
        noun: What it is, a fit or an autoencoder.
    """

    def __init__(self, needed: str, reason: str, noun: str = "fit") -> None:
        super().__init__(blocked_reason(needed, reason, noun))
        self.needed = needed


def blocked_reason(needed: str, reason: str, noun: str = "fit") -> str:
    """The reason of a stage that was not run because the training that it needs failed for `reason`."""
    return f"not run: {noun} {needed} failed: {reason}"


def is_blocked(status: Mapping[str, Any] | None, failure: str) -> bool:
    """Whether a record with this status.json and this failure is of a stage that was not run because another failed."""
    return "blocked_by" in (status or {}) or failure.startswith(_FORMER)
