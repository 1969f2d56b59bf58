"""The overrides of a run's command, read back from its result."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from diffsweep.sweep.store.override_words import split
from diffsweep.sweep.store.result import Result
from diffsweep.sweep.store.signature import NEUTRAL


def override_values(result: Result) -> dict[str, str]:
    """Key -> value of all overrides of a result but those that cannot change it."""
    return dict(_values(result.overrides))


# A report asks for those of its cells again for each choice.
@lru_cache(maxsize=1 << 15)
def _values(overrides: str) -> Mapping[str, str]:
    pairs = [word.lstrip("+~").partition("=") for word in split(overrides)]
    return {key: value for key, _, value in pairs if not key.startswith("-") and not is_neutral(key)}


@lru_cache(maxsize=1 << 12)
def is_neutral(key: str) -> bool:
    """Whether a key cannot change a result, and so is no choice."""
    return any(key == path or key.startswith((f"{path}.", f"{path}/")) for path in NEUTRAL)
