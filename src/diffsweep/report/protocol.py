"""How a number was measured, and so which results can be ranked together: those of one protocol."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from diffsweep.report.format import count
from diffsweep.sweep.store.result import Measure, Result

UNRECORDED = "unrecorded"


class MeasurementProtocol(NamedTuple):
    """What must agree for two numbers to be compared. What follows from another field comes after it.

    Each field is what results record, null included, or `UNRECORDED`.
    """

    dataset: Any
    metric: Any
    samples: Any
    reference_split: Any
    resize: Any
    bits: Any
    reference_samples: Any
    reference_digest: Any
    extractor_digest: Any
    settings: Any


# What people call the fields.
TITLES = {
    "dataset": "dataset",
    "metric": "metric",
    "samples": "samples",
    "reference_split": "reference split",
    "resize": "resize",
    "bits": "bits",
    "reference_samples": "reference samples",
    "reference_digest": "reference data",
    "extractor_digest": "extractor weights",
    "settings": "settings of the metric",
}
# Those that are keys of a result.
_KEYS = ("dataset", *MeasurementProtocol._fields[2:-1])


def protocol_of(result: Result, name: str | None = None) -> MeasurementProtocol:
    """How the number `name` of a result was measured; by default its main one."""
    values, metric = result.values, result.metric if name is None else name
    dataset, *known = (values.get(key, UNRECORDED) for key in _KEYS)
    settings = result.measured_by(metric) or UNRECORDED
    return MeasurementProtocol._make([dataset, metric or UNRECORDED, *known, settings])


def differing_fields(protocols: Sequence[MeasurementProtocol]) -> list[str]:
    """The fields that keep these protocols apart, without those that differ only because an earlier one does."""
    prefixes = [len({one[:length] for one in protocols}) for length in range(len(MeasurementProtocol._fields) + 1)]
    fields = zip(MeasurementProtocol._fields, pairwise(prefixes), strict=True)
    return [field for field, (before, after) in fields if after > max(before, 1)]


def by_protocol(results: Iterable[Result]) -> dict[MeasurementProtocol, list[Result]]:
    """Results by how their main numbers were measured, in the order in which the protocols come up."""
    groups: dict[MeasurementProtocol, list[Result]] = {}
    for result in results:
        groups.setdefault(protocol_of(result), []).append(result)
    return groups


def field_text(value: object) -> str:
    """The value of a field, for people."""
    return "none" if value is None else count(value)


def with_main_number(results: Sequence[Result], name: str) -> list[Result]:
    """Those `results` that have the number `name`, with that as their main one.

    Cells without finite samples have no numbers but lost all the same: they stay, among cells measured alike.

    Raises:
        ValueError: when none has it.
    """
    having = [result.replace(metric=name) for result in results if result.has(name)]
    if not having:
        known = sorted({known for result in results for known in result.measured})
        raise ValueError(f"no result has a number {name}; choose one of {', '.join(known)}")
    protocols = set(map(protocol_of, having))
    # Nothing was measured of a lost cell, with whatever settings.
    settings = dict.fromkeys(result.measured_by(name) for result in having)
    lost = []
    for result in results:
        if result.metric and result.lost and not result.has(name):
            moved = result.replace(metric=name)
            reason = result.main.reason
            found = (moved.with_measure(Measure(name, None, by=by, reason=reason)) for by in settings)
            lost += [one for one in found if protocol_of(one) in protocols][:1]
    return having + lost
