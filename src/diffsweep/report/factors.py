"""What distinguishes the cells of a comparison, and what each choice is worth: differences of cells that agree in all
else.

A factor is a config group or an overridden key that has several values among the cells. Two cells make a pair for a
factor if they differ in it and in nothing else that varies; for what never changes a training, if they are of the same
training, whatever they were told. A pair's difference has the paired interval of `compare`, and so has the mean over
several pairs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffsweep.report import statistics
from diffsweep.report.overrides import overridden
from diffsweep.sweep.store.record import CHOICES
from diffsweep.sweep.store.signature import INFERENCE

Result = Mapping[str, Any]

_GROUPS = (*CHOICES, "guidance")


@dataclass(frozen=True)
class Effect:
    """What one option of a factor is worth beside another.

    Attributes:
        option: of the factor; one of each, with commas, of several factors together.
        beside: the option that it is compared with: the best one.
        mean: difference option - beside of the number, over all pairs, with its interval; None where there is none.
        pairs: the difference of each pair.
        wins: how many pairs it wins.
    """

    option: str
    beside: str
    mean: statistics.Difference | None
    pairs: tuple[float, ...]
    wins: int


def factors(results: Sequence[Result]) -> dict[str, list[str]]:
    """The factors of some cells: name -> each cell's option, "-" where it has none."""
    told = [overridden(result) for result in results]
    names = [*_GROUPS, *dict.fromkeys(key for one in told for key in one if key not in _GROUPS)]
    found = {}
    for name in names:
        if name in _GROUPS:
            options = [_text(result.get(name)) for result in results]
        else:
            options = [one.get(name, "-") for one in told]
        if len(set(options)) > 1:
            found[name] = options
    return found


def effects(results: Sequence[Result], name: str, *chosen: str) -> list[Effect]:
    """Each option of a factor beside its best one, best first; empty if no two cells differ in this factor only.

    The truly best option is the best here or one whose interval contains 0, with 95 % or more: see `against_best`.

    Args:
        results: contents of result.json files, measured alike.
        name: of the number.
        chosen: one of `factors(results)`, or several that are taken together as one.
    """
    table = factors(results)
    asked = [", ".join(one) for one in zip(*(table[key] for key in chosen), strict=True)]
    others = {key: options for key, options in table.items() if key not in chosen}
    if all(map(_of_inference, chosen)):
        others = {key: options for key, options in others.items() if _of_inference(key)}
        others["fit"] = [str(result.get("fit")) for result in results]
    places: dict[tuple[str, ...], dict[str, Result]] = {}
    for i, result in enumerate(results):
        if statistics.finite(result, name) is not None:
            where = tuple(options[i] for options in others.values())
            places.setdefault(where, {})[asked[i]] = result
    shared = [place for place in places.values() if len(place) > 1]
    options = list(dict.fromkeys(option for place in shared for option in place))

    def gap_of(option: str, beside: str) -> float | None:
        differences = [_gap(place[option], place[beside], name) for place in shared if {option, beside} <= place.keys()]
        return sum(differences) / len(differences) if differences else None

    sign = -1 if statistics.larger_is_better(name) else 1
    # With gaps in the grid, the mean over all of an option's cells would compare it with others' easier places.
    standing = {
        option: sum(sign * gap for other in options if other != option and (gap := gap_of(option, other)) is not None)
        for option in options
    }
    order, level = sorted(options, key=standing.__getitem__), statistics.level_for(len(options) - 1)
    found = []
    for option in order[1:]:
        pairs = [(place[option], place[order[0]]) for place in shared if {option, order[0]} <= place.keys()]
        if pairs:
            gaps = tuple(_gap(a, b, name) for a, b in pairs)
            wins = sum(sign * gap < 0 for gap in gaps)
            mean = statistics.mean_difference(pairs, name, level)
            found.append(Effect(option, order[0], mean, gaps, wins))
    return found


def _gap(a: Result, b: Result, name: str) -> float:
    first, second = statistics.finite(a, name), statistics.finite(b, name)
    assert first is not None
    assert second is not None
    return first - second


def _of_inference(key: str) -> bool:
    """Whether a factor is about what is done with finished weights."""
    return re.split("[./]", key)[0] in INFERENCE


def _text(value: object) -> str:
    return "-" if value is None else str(value)
