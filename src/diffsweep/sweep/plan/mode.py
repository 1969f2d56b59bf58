"""The reuse policy of a run or sweep: the config key `mode`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any


class Mode(Enum):
    """What is done with results that are there already, and whether anything runs; see conf/config.yaml."""

    RETRY = "retry"
    CACHED = "cached"
    FORCE = "force"
    READ_ONLY = "read_only"
    PLAN = "plan"
    PREFETCH = "prefetch"

    @classmethod
    def of(cls, config: Mapping[Any, Any]) -> Mode:
        """The mode that a config asks for, `retry` by default. Raises ValueError for an unknown one."""
        value = config.get("mode", "retry")
        if isinstance(value, cls):
            return value
        try:
            return cls(value)
        except ValueError:
            valid = ", ".join(one.value for one in cls)
            raise ValueError(f"mode={value} is unknown: choose one of {valid}") from None

    @property
    def runs_jobs(self) -> bool:
        """Whether trainings and evaluations are run at all."""
        return self in (Mode.RETRY, Mode.CACHED, Mode.FORCE)

    @property
    def writes_plan(self) -> bool:
        """Whether a sweep's folder is written."""
        return self not in (Mode.PLAN, Mode.PREFETCH)

    @property
    def shows_plan(self) -> bool:
        """Whether the sweep's plan is printed, with what the rest of it may cost."""
        return self is Mode.PLAN

    @property
    def fetches_data(self) -> bool:
        """Whether data and weights are fetched instead of used."""
        return self is Mode.PREFETCH

    @property
    def forces(self) -> bool:
        """Whether finished work is done anew."""
        return self is Mode.FORCE

    @property
    def keeps_failures(self) -> bool:
        """Whether work that failed before is left as it is."""
        return self is Mode.CACHED
