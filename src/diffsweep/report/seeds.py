"""Cells that differ in nothing but the seed of their training, as one row of a table: a method, shown by its mean.

Of several trainings of a method the best one says little; tables of a terminal therefore rank means over seeds, with
an interval that is about other seeds as well (see `statistics.seed_mean`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffsweep.report import statistics
from diffsweep.report.fill_defaults import fill_defaults
from diffsweep.report.format import listed
from diffsweep.report.overrides import override_values
from diffsweep.report.statistics import Difference
from diffsweep.sweep.store.override_words import joined, split
from diffsweep.sweep.store.result import GROUPS, Measure, Result
from diffsweep.sweep.store.signature import cell_signature

# Of so many results the frozen configs are read, 3 ms each; of more only what was typed is looked at.
_READ = 500


@dataclass(frozen=True)
class Row:
    """A row of a table: one cell, or the cells of one method that differ in the training seed.

    Attributes:
        result: what is shown; of several cells the means over them.
        cells: with their own numbers.
    """

    result: Result
    cells: tuple[Result, ...]

    @property
    def seeds(self) -> tuple[float | None, ...]:
        """Of the trainings, in the order of `cells`."""
        return tuple(cell.seed for cell in self.cells)


def rows_of(
    results: Sequence[Result],
    config: Callable[[Result], Mapping[str, Any]],
    read: Callable[[Result], Result] = lambda result: result,
) -> list[Row]:
    """One row for all cells that differ in the training seed only, the best row first.

    `config` gives the resolved config of a result, empty if there is none; `read` a result with its jackknife values.
    """
    rows = _rows(results, config, read)
    return sorted(rows, key=lambda row: statistics.rank(row.result, row.result.metric))


def _rows(
    results: Sequence[Result], config: Callable[[Result], Mapping[str, Any]], read: Callable[[Result], Result]
) -> list[Row]:
    if len({result.seed for result in results if result.images is None}) < 2:
        return [Row(result, (result,)) for result in results]
    few = len(results) <= _READ
    filled = fill_defaults(results, config) if few else results
    groups: dict[str, list[Result]] = {}
    for result in filled:
        groups.setdefault(_method(result), []).append(result)
    found = []
    for group in groups.values():
        seeds = {result.seed for result in group} - {None}
        if len(seeds) == len(group) > 1 and (not few or _differ_in_seed(group, config)):
            cells = sorted(map(read, group), key=lambda result: result.seed or 0)
            found.append(Row(_mean(cells), tuple(cells)))
        else:
            found += [Row(result, (result,)) for result in group]
    return found


def _method(result: Result) -> str:
    """What cells that differ in the training seed have in common."""
    values = {key: value for key, value in override_values(result).items() if key != "seed"}
    options = [result.option(group) for group in GROUPS]
    return json.dumps([options, result.images, result.sample_seed, sorted(values.items())])


def _differ_in_seed(group: Sequence[Result], config: Callable[[Result], Mapping[str, Any]]) -> bool:
    """Whether the configs of cells are the same but for the seed, also where an edited default was not typed."""
    try:
        return len({cell_signature({**config(result), "seed": 0}) for result in group}) == 1
    except ValueError:
        return False


def _mean(group: Sequence[Result]) -> Result:
    """The means of cells, as a result with all of their seeds."""
    first, name = group[0], group[0].metric
    words = [word for word in split(first.overrides) if not re.match(r"\+*seed=", word)]
    seeds = ",".join(str(result.seed) for result in group)
    shown = first.replace(
        overrides=joined([*words, f"seed={seeds}"]),
        fit_seconds=_average([result.fit_seconds for result in group]),
        sample_seconds=_average([result.sample_seconds for result in group]),
        nfe=_average([result.nfe for result in group]),
        saturated=max((result.saturated for result in group if result.saturated is not None), default=None),
    )
    found = statistics.seed_mean(group, name)
    floor = _average([result.main.floor for result in group])
    if found is None:
        lost = [result for result in group if result.lost]
        reason = f"{len(lost)} of {len(group)} seeds have none"
        value = None if lost else _average([result.value(name) for result in group])
        return shown.with_measure(Measure(name, value, floor=floor, by=first.main.by, reason=reason if lost else None))
    return shown.with_measure(Measure(name, found.value, found.low, found.high, floor, first.main.by))


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    mean = sum(known) / len(known)
    return int(mean) if mean == int(mean) and all(isinstance(value, int) for value in known) else mean


def differences_to_best(
    rows: Sequence[Row], shown: Sequence[Row], read: Callable[[Result], Result]
) -> tuple[Row | None, list[Difference | None]]:
    """As `statistics.differences_to_best`, of rows: methods are compared seed by seed.

    Rows of different seeds have no common examples, and nothing is said of their difference.
    """
    name = rows[0].result.metric
    able = [row for row in rows if row.result.value(name) is not None]
    if not able:
        return None, [None for _ in shown]
    best = min(able, key=lambda row: statistics.rank(row.result, name))
    level = statistics.level_for(len(able) - 1)
    whole = [read(cell) for cell in best.cells]

    def difference(row: Row) -> Difference | None:
        if row is best or row.result.value(name) is None:
            return None
        if len(row.cells) == len(whole) == 1:
            return statistics.difference(read(row.cells[0]), whole[0], name, level)
        if row.seeds != best.seeds:
            return None
        return statistics.mean_difference(list(zip(map(read, row.cells), whole, strict=True)), name, level)

    return best, [difference(row) for row in shown]


def seeds_note(rows: Sequence[Row]) -> list[str]:
    """A line that says over which seeds means are taken; none if there are no means."""
    of_several = dict.fromkeys(row.seeds for row in rows if len(row.cells) > 1)
    if not of_several:
        return []
    named = [listed(list(map(str, seeds))) for seeds in of_several]
    which = f"seeds {named[0]}" if len(named) == 1 else "several seeds"
    return [f"means over trainings of {which}: their intervals are about other seeds too; --format csv has each cell"]
