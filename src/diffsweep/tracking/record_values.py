"""What a logger shows of a record (done.json, result.json, metrics.jsonl): numbers, words, pictures, summaries."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from diffsweep.sweep.store.result import is_jackknife

# Folder, below a fit's, of the pictures that are drawn while it trains; NUMBER_OF_STEPS.png each.
PICTURES = "samples"

_SUMMARIES: dict[str, Callable[[Sequence[float]], float]] = {
    "min": min,
    "max": max,
    "mean": lambda values: math.fsum(values) / len(values),
    "last": lambda values: values[-1],
}
# Which summaries a metric has; any other metric, a distance for example, has the least and the last value.
_SUMMARIES_OF = {"gradient_norm": ("max", "last"), "images_per_second": ("mean", "last"), "lr": ("last",)}
_DEFAULT = ("min", "last")


def digest(record: Mapping[str, object]) -> str:
    """A hash of the content of done.json or result.json: 12 hexadecimal digits."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:12]


def numbers(record: Mapping[str, object]) -> dict[str, float]:
    """The finite numbers of a record."""
    return {
        key: value
        for key, value in record.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def words(record: Mapping[str, object]) -> dict[str, str | bool]:
    """What a record says in words: how its numbers were measured, of which commit, with which versions."""
    return {
        key: value
        for key, value in record.items()
        if isinstance(value, (str, bool)) and key not in ("grid", "status") and not is_jackknife(key)
    }


def pictures(folder: Path) -> list[tuple[int, Path]]:
    """(steps done, picture) of what was drawn of a training while it went on, in order."""
    return sorted((int(path.stem), path) for path in (folder / PICTURES).glob("*.png") if path.stem.isdecimal())


def summary_names(metric: str) -> tuple[str, ...]:
    """Which summaries of a metric are shown: of "min", "max", "mean" and "last"."""
    return _SUMMARIES_OF.get(metric, _DEFAULT)


def summaries(rows: Sequence[Mapping[str, object]]) -> dict[str, dict[str, float]]:
    """Metric -> summary -> value over all rows of metrics.jsonl."""
    series: dict[str, list[float]] = {}
    for row in rows:
        for key, value in numbers(row).items():
            series.setdefault(key, []).append(value)
    series.pop("step", None)
    return {key: {name: _SUMMARIES[name](values) for name in summary_names(key)} for key, values in series.items()}
