"""What the runs were told on their command lines, read back from `overrides` of their results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffsweep.sweep.store.override_words import split
from diffsweep.sweep.store.signature import NEUTRAL


def overridden(result: Mapping[str, Any]) -> dict[str, str]:
    """Key -> value of all overrides of a result but those that cannot change it."""
    pairs = [word.lstrip("+~").partition("=") for word in split(str(result.get("overrides") or ""))]
    return {key: value for key, _, value in pairs if not key.startswith("-") and not neutral(key)}


def neutral(key: str) -> bool:
    """Whether a key cannot change a result, and so is no choice."""
    return any(key == path or key.startswith((f"{path}.", f"{path}/")) for path in NEUTRAL)
