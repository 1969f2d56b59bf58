"""The factors of a comparison and what each option of a factor is worth: differences of cells that agree in all else.

A factor is a config group or an overridden key that has several values among the cells. Two cells make a pair for a
factor if they differ in it and in nothing else that varies; for a factor that never changes a training, if they are of
the same training, whatever their overrides. A pair's difference has the paired interval of `statistics.difference`, and
so has the mean over several pairs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from diffsweep.report import statistics
from diffsweep.report.overrides import override_values
from diffsweep.sweep.store.result import GROUPS, Result, larger_is_better
from diffsweep.sweep.store.signature import INFERENCE


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
    overrides = [override_values(result) for result in results]
    names = [*GROUPS, *dict.fromkeys(key for one in overrides for key in one if key not in GROUPS)]
    found = {}
    for name in names:
        if name in GROUPS:
            options = [result.option(name) or "-" for result in results]
        else:
            options = [one.get(name, "-") for one in overrides]
        if len(set(options)) > 1:
            found[name] = options
    return found


def shown_factors(results: Sequence[Result]) -> dict[str, list[str]]:
    """The factors, with numbers to as many digits as tell their options apart, at least four; a search draws them."""
    return {name: shown_options(options) for name, options in factors(results).items()}


def shown_options(options: Sequence[str]) -> list[str]:
    """The options of a factor as people read them; those that are no long numbers stay as they are."""
    long = {option for option in options if _is_long(option)}
    for places in range(4, 17):
        known = {option: f"{float(option):.{places}g}" if option in long else option for option in options}
        if len(set(known.values())) == len(known):
            return [known[option] for option in options]
    return list(options)


def _is_long(option: str) -> bool:
    return len(option) > 7 and re.fullmatch(r"[-+]?\d*\.\d+(e[-+]?\d+)?", option) is not None


def effects(results: Sequence[Result], name: str, *chosen: str) -> list[Effect]:
    """Each option of a factor beside its best one, best first; empty if no two cells differ in this factor only.

    The truly best option is the best here or one whose interval contains 0, with 95 % or more (see
    `differences_to_best`).

    Args:
        results: with their jackknife values, of one protocol.
        name: of the number.
        chosen: one of `factors(results)`, or several that are taken together as one.
    """
    table = factors(results)
    chosen_options = [", ".join(one) for one in zip(*(table[key] for key in chosen), strict=True)]
    others = {key: options for key, options in table.items() if key not in chosen}
    if all(map(_of_inference, chosen)):
        others = {key: options for key, options in others.items() if _of_inference(key)}
        others["fit"] = [result.fit for result in results]
    places: dict[tuple[str, ...], dict[str, Result]] = {}
    for i, result in enumerate(results):
        if result.value(name) is not None:
            where = tuple(options[i] for options in others.values())
            places.setdefault(where, {})[chosen_options[i]] = result
    shared = [place for place in places.values() if len(place) > 1]
    options = list(dict.fromkeys(option for place in shared for option in place))

    sign = -1 if larger_is_better(name) else 1
    # With gaps in the grid, the mean over all of an option's cells would compare it with others' easier places.
    sums: dict[tuple[str, str], tuple[float, int]] = {}
    for place in shared:
        values = [(option, sign * _value(result, name)) for option, result in place.items()]
        for i, (option, value) in enumerate(values):
            for other, beside in values[:i]:
                total, number = sums.get((option, other), (0.0, 0))
                sums[option, other] = total + value - beside, number + 1
    standing = dict.fromkeys(options, 0.0)
    for (option, other), (total, number) in sums.items():
        standing[option] += total / number
        standing[other] -= total / number
    order, level = sorted(options, key=standing.__getitem__), statistics.level_for(len(options) - 1)
    found = []
    for option in order[1:]:
        pairs = [(place[option], place[order[0]]) for place in shared if {option, order[0]} <= place.keys()]
        if pairs:
            gaps = tuple(_value(a, name) - _value(b, name) for a, b in pairs)
            wins = sum(sign * gap < 0 for gap in gaps)
            mean = statistics.mean_difference(pairs, name, level)
            found.append(Effect(option, order[0], mean, gaps, wins))
    return found


def _value(result: Result, name: str) -> float:
    value = result.value(name)
    assert value is not None
    return value


def _of_inference(key: str) -> bool:
    """Whether a factor is about what is done with finished weights."""
    return re.split("[./]", key)[0] in INFERENCE
