"""The cells that a report compares, and how their names and numbers are put into words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffsweep.report import statistics
from diffsweep.report.factors import shown_factors
from diffsweep.report.failure import Failure
from diffsweep.report.format import count, duration, things, with_error
from diffsweep.report.overrides import override_values
from diffsweep.report.protocol import MeasurementProtocol, by_protocol, with_main_number
from diffsweep.report.seeds import differences_to_best, rows_of, seeds_note
from diffsweep.report.verdict import verdict
from diffsweep.sweep.store.record import Cell
from diffsweep.sweep.store.result import CHOICES, Result, larger_is_better

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"

# Characters of an option in a name: lists and paths have no end.
_WORD = 40


@dataclass(frozen=True)
class Comparison:
    """What a report is about.

    Attributes:
        title: its heading, as the name of a sweep.
        runs: folder of the runs.
        results: with their jackknife values.
        failures: cells without result.
        command: what was typed to launch it, or "".
        configs: cell -> its resolved config, of those that are known without reading files.
        motions: cell -> how its first samples come about (see `animation.motion`).
        search: of a search, its trials (see `search_data`).
        options: what defaults brought, as `sampler/spacing=karras`, as far as it is known; for the bibliography.
    """

    title: str
    runs: Path
    results: Sequence[Result]
    failures: Sequence[Failure] = ()
    command: str = ""
    configs: Mapping[str, Mapping[str, Any]] | None = None
    motions: Mapping[str, Mapping[str, Any]] | None = None
    search: Mapping[str, Any] | None = None
    options: frozenset[str] = frozenset()

    def ranked_by(self, metric: str | None) -> Sequence[Result]:
        """The results with another main number; None leaves them as they are. Raises ValueError if none has it."""
        return self.results if metric is None else with_main_number(self.results, metric)

    def config(self, result: Result) -> Mapping[str, Any]:
        """The resolved config of a cell; empty if it is not there."""
        known = (self.configs or {}).get(result.cell)
        return Cell.of(result, self.runs).config() if known is None else known


def tables(results: Sequence[Result]) -> dict[MeasurementProtocol, list[Result]]:
    """Results by how they were measured, the largest group first, each best first."""
    groups = sorted(by_protocol(results).items(), key=lambda item: -len(item[1]))
    return {protocol: best_first(group) for protocol, group in groups}


def best_first(rows: Sequence[Result]) -> list[Result]:
    """Cells of one protocol in the order of their main number."""
    return sorted(rows, key=lambda result: statistics.rank(result, rows[0].metric))


def cell_name(factors: Mapping[str, Sequence[str]], i: int, result: Result) -> str:
    """What distinguishes cell `i` from the others; its choices, if it is alone."""
    options = {key: options[i] for key, options in factors.items() if options[i] != "-"}
    if not options:
        images = {"images": result.images} if result.images is not None else {}
        options = images | {key: option for key, option in result.options.items() if key in CHOICES}
    return " ".join(f"{key}={_short(option)}" for key, option in options.items()) or result.cell


def common_options(rows: Sequence[Result], factors: Mapping[str, Sequence[str]]) -> str:
    """The choices and overrides that all cells share."""
    first = rows[0]
    same = {key: option for key, option in first.options.items() if key in CHOICES}
    same |= override_values(first)
    return " ".join(f"{key}={_short(value)}" for key, value in same.items() if key not in factors)


def answer(rows: Sequence[Result], config: Callable[[Result], Mapping[str, Any]]) -> list[str]:
    """Sentences about a table: the winner, its margin, how sure that is, who else may be best, what all of it cost.

    Trainings that differ in their seed only are one method, and methods are compared by their means over the seeds.

    Args:
        rows: of one protocol, best first.
        config: gives the resolved config of a cell, empty if there is none.
    """
    name, methods = rows[0].metric, rows_of(rows, config)
    results = [method.result for method in methods]
    best, differences = differences_to_best(methods, methods, lambda result: result)
    if best is None:
        return [f"No cell has a finite {name}.", _cost(rows)]
    varying = shown_factors(results)
    names = [cell_name(varying, i, result) for i, result in enumerate(results)]
    others = [
        i
        for i, (result, found) in enumerate(zip(results, differences, strict=True))
        if i and result.value(name) is not None and (found is None or not found.significant)
    ]
    ranked = sum(result.value(name) is not None for result in results)
    if ranked == 1:
        sentences = [f"{names[0]}: {_number(results[0], name)}."]
    elif others:
        sentences = _undecided(results, names, others)
    else:
        lead = differences[1]
        assert lead is not None
        margin = with_error(abs(lead.value), lead.half, PLUS_MINUS)
        how, calls = "more" if larger_is_better(name) else "less", results[1].nfe
        sentences = [
            f"{names[0]} is best {_sure()}: {_number(results[0], name)}, {margin} {how} than the next, {names[1]}"
            f"{_calls(results[1]) if calls != results[0].nfe else ''}."
        ]
    of_seeds = [f"{line[0].upper()}{line[1:].partition(';')[0]}." for line in seeds_note(methods)]
    said = verdict(results[0].measure(name))
    return [*sentences, *of_seeds, *([f"The first is {said}."] if said else []), _cost(rows)]


def _undecided(rows: Sequence[Result], names: Sequence[str], others: Sequence[int]) -> list[str]:
    """Sentences about a first that cannot be told from `others`."""
    name, amount = rows[0].metric, things(len(others), "other")
    more = f"; and {len(others) - 3} more" if len(others) > 3 else ""
    sentences = [
        f"{names[0]} comes first: {_number(rows[0], name)}, but {amount} cannot be told from it {_sure()}.",
        f"These may be as good: {'; '.join(names[i] for i in others[:3])}{more}.",
    ]
    calls = [rows[i].nfe for i in (0, *others)]
    cheapest = min((nfe for nfe in calls if nfe is not None), default=None)
    if cheapest is not None and calls[0] is not None and cheapest < calls[0]:
        i = (0, *others)[calls.index(cheapest)]
        sentences.append(f"The cheapest of them is {names[i]}: {_number(rows[i], name)}.")
    return sentences


def _sure() -> str:
    return f"with {statistics.LEVEL:.0%} confidence".replace("%", " %")


def _short(value: str) -> str:
    return value if len(value) <= _WORD else f"{value[: _WORD // 2]}\N{HORIZONTAL ELLIPSIS}{value[-_WORD // 3 :]}"


def _number(result: Result, name: str) -> str:
    measure = result.measure(name)
    return f"{name} {with_error(measure.value, measure.half, PLUS_MINUS)}{_calls(result)}"


def _calls(result: Result) -> str:
    return f" at {count(result.nfe)} network calls a sample" if result.nfe is not None else ""


def _cost(rows: Sequence[Result]) -> str:
    ours = {result.fit: result for result in rows if result.images is None}
    training = sum(result.fit_seconds or 0.0 for result in ours.values())
    sampling = sum((result.sample_seconds or 0.0) + (result.evaluate_seconds or 0.0) for result in rows)
    cells = things(len(rows), "cell") + (f" of {things(len(ours), 'training')}" if ours else "")
    return f"{cells} took {duration(training)} of training, and {duration(sampling)} of sampling and evaluation."
