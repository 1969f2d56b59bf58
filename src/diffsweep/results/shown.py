"""Results that show themselves in a notebook: numbers beside samples. Every text in them is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd

from diffsweep.report.comparison import PLUS_MINUS, answer, cell_name, tables
from diffsweep.report.factors import shown_factors
from diffsweep.report.format import count, duration, with_error
from diffsweep.report.live import near
from diffsweep.report.statistics import ties_with_best
from diffsweep.report.thumbnails import strip
from diffsweep.report.verdict import verdict
from diffsweep.results.table import load_results
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.store.record import Cell
from diffsweep.sweep.store.result import CHOICES, Measure, Result

# Samples beside a result, pixels of their height, and rows of a table that have any.
_SAMPLES, _HEIGHT, _ROWS = 10, 44, 50


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        cell: its folder.
        result: its result.json.
    """

    cell: Cell
    result: Result

    @property
    def metric(self) -> str:
        """The name of the main number."""
        return self.result.metric

    @property
    def value(self) -> float | None:
        """The main number; None if it is not finite."""
        return self.result.main.value

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """The ends of its 95 % interval."""
        return self.result.main.low, self.result.main.high

    @property
    def floor(self) -> float | None:
        """The same number of real data against real data."""
        return self.result.main.floor

    @property
    def samples(self) -> Path:
        """The picture of the first samples."""
        return self.cell.samples_file

    def __repr__(self) -> str:
        words = [f"{group}={option}" for group, option in self.result.options.items() if group in CHOICES]
        return f"{_measured(self.result.main)}  {' '.join(words)}  {near(str(self.cell.folder))}"

    def _repr_html_(self) -> str:
        result = self.result
        rows = [(group, option) for group, option in result.options.items() if group in CHOICES]
        rows.append(("network calls", count(result.nfe)))
        measures = [result.main, *(result.measure(name) for name in result.measured if name != result.metric)]
        rows += [(measure.name, _measured(measure, named=False) + _beside_floor(measure)) for measure in measures[:8]]
        rows.append(("samples", f"{count(result.samples)} in {duration(result.sample_seconds)}"))
        rows.append(("training", f"{count(result.fit_steps)} steps in {duration(result.fit_seconds)}"))
        if result.note:
            rows.append(("careful", result.note))
        rows.append(("folder", near(str(self.cell.folder))))
        cells = "".join(
            f'<tr><th style="text-align: left">{escape(name)}</th><td style="text-align: left">{escape(text)}</td></tr>'
            for name, text in rows
        )
        return f"<div>{_picture(self.cell)}<table>{cells}</table></div>"


class SweepTable(pd.DataFrame):
    """The finished cells of a sweep, best first, with the columns of `results.load`.

    Attributes:
        plan: the sweep's.
        found: the results of its finished cells.
        failures: cell -> why it has no result.
    """

    _metadata = ["plan", "found", "failures"]  # noqa: RUF012 (of pandas)
    plan: Plan
    found: Sequence[Result]
    failures: Mapping[str, str]

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        # A part of it is an ordinary table.
        return pd.DataFrame

    def __repr__(self) -> str:
        lines = [f"sweep {self.plan.name}"]
        for rows in tables(self.found).values():
            varying = shown_factors(rows)
            lines += [f"  {_measured(row.main)}  {cell_name(varying, i, row)}" for i, row in enumerate(rows)]
        return "\n".join([*lines, *(f"  no result: {reason}" for reason in dict.fromkeys(self.failures.values()))])

    def _repr_html_(self) -> str:
        parts = [f"<div><b>{escape(self.plan.name)}</b></div>"]
        for rows in tables(self.found).values():
            parts.append(_leaderboard(rows, self.plan.runs))
        if self.failures:
            lines = [f"<li>{escape(reason)}</li>" for reason in dict.fromkeys(self.failures.values())]
            parts.append(f"<div>{len(self.failures)} without result:<ul>{''.join(lines)}</ul></div>")
        return f"<div>{''.join(parts)}</div>"


def sweep_table(plan: Plan, found: Sequence[Result], failures: Mapping[str, str]) -> SweepTable:
    """The table of the finished cells `found` of a sweep."""
    ranked = [result for rows in tables(found).values() for result in rows]
    table = SweepTable(load_results(ranked, plan.runs))
    for name, value in (("plan", plan), ("found", ranked), ("failures", failures)):
        object.__setattr__(table, name, value)
    return table


def _leaderboard(rows: Sequence[Result], runs: Path) -> str:
    name, varying = rows[0].metric, shown_factors(rows)
    ties = {result.cell for result in ties_with_best(rows, name)}
    lines = []
    for place, result in enumerate(rows):
        mark = "" if result.cell not in ties else " (best)" if not place else " (tied)"
        texts = [
            *(options[place] for options in varying.values()),
            _measured(result.main, named=False) + mark,
            count(result.nfe),
            duration(result.sample_seconds),
        ]
        cells = "".join(f'<td style="text-align: left">{escape(text)}</td>' for text in texts)
        lines.append(f"<tr><td>{_picture(Cell.of(result, runs)) if place < _ROWS else ''}</td>{cells}</tr>")
    heads = ["", *varying, name, "network calls", "sampling"]
    head = "".join(f'<th style="text-align: left">{escape(text)}</th>' for text in heads)
    said = " ".join(answer(rows, lambda result: Cell.of(result, runs).config()))
    return f"<p>{escape(said)}</p><table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _measured(measure: Measure, named: bool = True) -> str:
    shown = with_error(measure.value, measure.half, PLUS_MINUS)
    return f"{measure.name} {shown}" if named else shown


def _beside_floor(measure: Measure) -> str:
    said = verdict(measure)
    return f" ({said})" if said else ""


def _picture(cell: Cell) -> str:
    """The first samples; nothing if there is no picture."""
    found = strip(cell.samples_file, _SAMPLES)
    if found is None:
        return ""
    return f'<img src="{found["src"]}" alt="samples" style="height: {_HEIGHT}px; image-rendering: pixelated">'
