"""The resources that a SLURM job asks for, checked before anything is submitted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

# Options of sbatch that `submit` sets itself.
_OURS = ("array", "dependency", "error", "job-name", "kill-on-invalid-dep", "no-requeue", "open-mode", "output")
_OURS += ("parsable", "requeue", "signal", "wait", "wrap")
_FIELD_OF = {"mem": "memory", "cpus-per-task": "cpus", "ntasks-per-node": "tasks_per_node"}
_TIME = re.compile(r"\d+|\d+:\d\d(:\d\d)?|\d+-\d+(:\d\d(:\d\d)?)?|UNLIMITED|INFINITE")
_MEMORY = re.compile(r"(\d+)([KMGT])?B?", re.IGNORECASE)


@dataclass(frozen=True)
class Resources:
    """The resources of one kind of job; None leaves them to the site's default.

    Attributes:
        partition: Name of the partition.
        account: Name of the account that is charged.
        qos: Name of the quality of service.
        gres: Other resources of a node, as gpu:2; None: gpu:N for trainer.devices=N on GPUs.
        time: Minutes, or SLURM's D-HH:MM:SS in quotes; a fit that runs into it saves, and is queued again.
        memory: Of a node, with its unit, as 16GB.
        cpus: Of a task, >= 1.
        constraint: Features that a node must have.
        exclude: Nodes that are not used.
        setup: Lines of shell that run before the tasks start, as module load.
        extra: Any other option of sbatch, by its long name, True for one without a value.
        nodes: How many, >= 1.
        tasks_per_node: How many, >= 1.

    Raises:
        ValueError: for a bad value.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gres: str | None = None
    time: int | str | None = None
    memory: str | None = None
    cpus: int | None = None
    constraint: str | None = None
    exclude: str | None = None
    setup: tuple[str, ...] = ()
    extra: Mapping[str, str | int | bool] = field(default_factory=dict)
    nodes: int = 1
    tasks_per_node: int = 1

    def __post_init__(self) -> None:
        for name in ("partition", "account", "qos", "gres", "constraint", "exclude"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value or "\n" in value):
                raise ValueError(f"{name}={value!r}: give text, or null for the site's default")
        for name in ("cpus", "nodes", "tasks_per_node"):
            value = getattr(self, name)
            if not _is_count(value) and not (name == "cpus" and value is None):
                raise ValueError(f"{name}={value!r}: give a whole number of 1 or more")
        if not (
            self.time is None or _is_count(self.time) or (isinstance(self.time, str) and _TIME.fullmatch(self.time))
        ):
            raise ValueError(f"time={self.time!r}: give minutes, or 'D-HH:MM:SS' in quotes, as time='1-12:00:00'")
        if self.memory is not None and not (isinstance(self.memory, str) and _MEMORY.fullmatch(self.memory)):
            raise ValueError(f"memory={self.memory!r}: give a whole number with its unit, as 16GB or 900MB")
        if not (isinstance(self.setup, tuple) and all(isinstance(line, str) for line in self.setup)):
            raise ValueError(f"setup={self.setup!r}: give a list of shell lines")
        for name, value in self.extra.items():
            _check_extra(name, value)

    @classmethod
    def of(cls, mapping: Mapping[str, Any]) -> Resources:
        """The resources that a config says. Raises ValueError for an unknown key or a bad value."""
        valid = [one.name for one in fields(cls)]
        for key in mapping:
            if key not in valid:
                raise ValueError(f"resources have no {key!r}: choose from {', '.join(valid)}; others go into extra")
        plain: dict[str, Any] = dict(mapping)
        for name, empty in {"setup": (), "extra": {}, "nodes": 1, "tasks_per_node": 1}.items():
            if plain.get(name) is None:
                plain[name] = empty
        if not isinstance(plain["extra"], Mapping):
            raise ValueError(
                f"extra={plain['extra']!r}: give options of sbatch and their values, as {{reservation: big}}"
            )
        lines = plain["setup"]
        return cls(
            **{**plain, "setup": (lines,) if isinstance(lines, str) else tuple(lines), "extra": dict(plain["extra"])}
        )


def minutes(time: int | str | None) -> int | None:
    """Whole minutes, rounded up, of a time limit as `Resources` takes it; None if there is none."""
    if time is None or isinstance(time, int):
        return time
    if not time[0].isdigit():
        return None
    days, dash, clock = time.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    # `5`: minutes, `5:30`: minutes and seconds, `1:5:30`: with hours; behind days it is hours that come first.
    scale = [3600, 60, 1] if dash or len(parts) == 3 else [60, 1]
    seconds = 86400 * int(days or 0) + sum(part * one for part, one in zip(parts, scale, strict=False))
    return -(-seconds // 60)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_extra(name: str, value: object) -> None:
    option = name.replace("_", "-") if isinstance(name, str) else ""
    known = {one.name.replace("_", "-"): one.name for one in fields(Resources)} | _FIELD_OF
    if option in _OURS:
        raise ValueError(f"extra.{name} is set by diffsweep itself: leave it out")
    if option in known:
        raise ValueError(f"extra.{name} has a place of its own: {known[option]}=...")
    if not re.fullmatch(r"[a-z][a-z0-9-]+", option):
        raise ValueError(f"extra.{name} is no option of sbatch: give its long name without dashes, as reservation")
    if not isinstance(value, (str, int)) or "\n" in str(value):
        raise ValueError(f"extra.{name}={value!r}: give text, a number, or true for an option without a value")
