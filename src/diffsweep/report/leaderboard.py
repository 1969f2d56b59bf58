"""The table of cells of one protocol in a terminal, best first: what differs, their numbers, and how sure the order is.

Columns that are the same in all rows are printed once, above the table. Cells that chance alone may have put behind the
best are marked (see `statistics`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffsweep.messages import UNBOUNDED
from diffsweep.report import statistics
from diffsweep.report.console import lines, show, sign_of
from diffsweep.report.factors import shown_options
from diffsweep.report.fill_defaults import fill_defaults
from diffsweep.report.format import count, duration, listed, number, some, things, with_error
from diffsweep.report.guidance_strength import strength_notes, strength_text
from diffsweep.report.overrides import override_values
from diffsweep.report.saturation import is_saturated, saturation_notes, share_text
from diffsweep.report.seeds import Row, differences_to_best, rows_of, seeds_note
from diffsweep.report.statistics import Difference
from diffsweep.sweep.store.record import Cell
from diffsweep.sweep.store.result import CHOICES, Result, larger_is_better

# What a narrow terminal goes without, first to last.
_DISPENSABLE = ("parameters", "GFLOP", "steps", "sampling", "training", "after autoencoder", "floor", "behind best")

# The columns behind choices and overrides, before and after that of the metric.
_BEFORE: dict[str, Callable[[Result], str]] = {
    "steps": lambda result: count(result.steps),
    "NFE": lambda result: count(result.nfe),
}
_AFTER: dict[str, Callable[[Result], str]] = {
    "floor": lambda result: number(result.main.floor),
    "samples": lambda result: count(result.samples),
    "training": lambda result: duration(result.fit_seconds),
    "sampling": lambda result: duration(result.sample_seconds),
}
# Beside the floor, where there are autoencoders: what real samples are worth after one.
_RECONSTRUCTION = "after autoencoder"
# Only where they differ.
_NETWORK: dict[str, Callable[[Result], str]] = {
    "parameters": lambda result: count(result.parameters),
    # Of a call of the network for one sample.
    "GFLOP": lambda result: number(result.call_flops and result.call_flops / 1e9),
}
_SHOWN_ANYWAY = (*CHOICES, "images", "sampler.nfe")


def show_group(
    group: Sequence[Result], console: Console, best_first: bool, limit: int | None, runs: str | Path, heading: str
) -> None:
    """Print the table of a `group` of cells of one protocol, at most `limit` of them.

    `best_first` says whether they are in the order of their numbers; `heading` ends the line above the table.
    """

    def config(result: Result) -> Mapping[str, Any]:
        return Cell.of(result, runs).config()

    def read(result: Result) -> Result:
        # Lists of very many results come without what only the intervals of differences are made of.
        number = result.measure(result.metric)
        if number.jackknife or number.low is None:
            return result
        whole = Cell.of(result, runs).result()
        return result if whole is None else result.with_measure(whole.measure(result.metric))

    rows = rows_of(group, config, read) if best_first else [Row(result, (result,)) for result in group]
    shown_rows = rows[:limit]
    shown, cells = [row.result for row in shown_rows], [cell for row in shown_rows for cell in row.cells]
    metric, sign = shown[0].metric, sign_of(console)
    standing, legend = _standing(rows, shown_rows, metric, read, sign)
    filled = fill_defaults(shown, config)
    columns = _columns(filled, metric, standing, sign)
    always = {metric, *standing} | ({"#", "images", "sampler", "NFE"} if len(shown) == 1 else set())
    shared = {name: texts[0] for name, texts in columns.items() if len(set(texts)) == 1 and name not in always}
    varying = {name: texts for name, texts in columns.items() if name not in shared}
    table = _table(varying, console, best_first)
    # A narrow terminal shows the ranking whole rather than everything in shreds.
    left_out = []
    for name in _DISPENSABLE:
        wanted = console.measure(table, options=console.options.update(width=UNBOUNDED)).maximum
        if wanted > console.width and name in varying:
            left_out.append(name)
            del varying[name]
            table = _table(varying, console, best_first)
    direction = "larger" if larger_is_better(metric) else "smaller"
    ours = [result.fit for result in group if result.images is None]
    counted = [f"{things(len(ours), 'run')} of {things(len(set(ours)), 'training')}"] if ours else []
    if len(ours) < len(group):
        counted.append(things(len(group) - len(ours), "set") + " of given images")
    console.print(Text(f"{listed(counted)}, by {metric} ({direction} is better){heading}"))
    if known := {name: text for name, text in shared.items() if text != "-"}:
        whom = "all" if len(shown) == len(rows) else "all shown"
        console.print(Text(f"{whom}: " + ", ".join(f"{name} {text}" for name, text in known.items())))
    show(console, table)
    for line in [*seeds_note(shown_rows), *legend]:
        console.print(Text(line))
    if len(shown) < len(rows):
        console.print(Text(f"the first {count(len(shown))} of {count(len(rows))}; --limit 0 shows all"))
    if (warning := version_warning(cells)) is not None:
        lines(console, warning)
    if left_out:
        console.print(Text(f"a wider terminal also shows {', '.join(left_out)}"))
    lost = [result for result in shown if result.lost]
    if lost:
        reasons = dict.fromkeys(result.main.reason or "no reason was recorded" for result in lost)
        last = ", ranked last" if best_first else ""
        console.print(Text(f"- : no {metric}{last}: {some(list(reasons))}"))
    lines(console, *absent_numbers([result for result in cells if not result.lost]))
    lines(console, *saturation_notes(cells), *(strength_notes(cells) if best_first else []))
    lines(console, "")


def _standing(
    rows: Sequence[Row], shown: Sequence[Row], metric: str, read: Callable[[Result], Result], sign: str
) -> tuple[dict[str, list[str]], list[str]]:
    """Columns that tell how sure it is that a cell is behind the best, and lines that explain them; none if unknown."""
    best, differences = differences_to_best(rows, shown, read)
    if not any(differences):
        return {}, []

    def mark(row: Row, found: Difference | None) -> str:
        if row is best:
            return "*"
        if found is None:
            return "?" if row.result.value(metric) is not None else ""
        return "" if found.significant else "="

    marks = [mark(row, found) for row, found in zip(shown, differences, strict=True)]
    behind = [
        "" if found is None else "+" * (found.value >= 0) + with_error(found.value, found.half, sign)
        for found in differences
    ]
    legend = []
    if "=" in marks:
        meaning = "= cannot be told from the best: the interval of its difference contains 0"
        legend.append(f"{meaning}; the truly best is * or = with 95 %")
    if "?" in marks:
        legend.append("? cannot be compared with the best: there is no interval")
    if any(found is not None and not found.paired for found in differences):
        legend.append("not paired, hence less sure: differences to samples of another evaluation.seed, to given images")
    return {"best": marks, "behind best": behind}, legend


def _table(columns: Mapping[str, Sequence[str]], console: Console, best_first: bool) -> Table:
    plain = not console.is_terminal
    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, header_style="" if plain else "bold")
    for name in columns:
        numeric = name not in CHOICES and any(text.lstrip("+-")[:1].isdigit() for text in columns[name])
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    rows = list(zip(*columns.values(), strict=True))
    if plain:
        rows = [tuple(text or "-" for text in row) for row in rows]
    for row in rows:
        best = best_first and row is rows[0] and len(rows) > 1 and not plain
        table.add_row(*map(Text, row), style="bold" if best else None)
    return table


def _columns(
    shown: Sequence[Result], metric: str, standing: Mapping[str, list[str]], sign: str
) -> dict[str, list[str]]:
    """All columns of a table, from left to right, as texts; `standing` goes behind the metric."""
    columns: dict[str, list[str]] = {"#": [str(place) for place in range(1, len(shown) + 1)]}
    if any(result.images is not None for result in shown):
        columns["images"] = [number(result.images) for result in shown]
    for choice in CHOICES:
        columns[choice] = [number(result.option(choice)) for result in shown]
    overrides = [override_values(result) for result in shown]
    keys = list(dict.fromkeys(key for one in overrides for key in one if key not in _SHOWN_ANYWAY))
    # An override that all runs have is in the choices, or no news.
    keys = [key for key in keys if len({one.get(key) for one in overrides}) > 1]
    for key in keys:
        last = key.rpartition(".")[2]
        taken = {*_BEFORE, *_AFTER, *_NETWORK, *standing}
        unique = [other.rpartition(".")[2] for other in keys].count(last) == 1 and last not in taken
        columns[last if unique and last != metric else key] = shown_options([one.get(key, "-") for one in overrides])
    columns |= {name: [text(result) for result in shown] for name, text in _BEFORE.items()}
    columns[metric] = [with_error(result.main.value, result.main.half, sign) for result in shown]
    columns |= standing
    if any(map(is_saturated, shown)):
        columns["saturated"] = [share_text(result.saturated) if is_saturated(result) else "" for result in shown]
    if any(strengths := [strength_text(result) for result in shown]):
        columns["strength"] = strengths
    columns |= {name: [text(result) for result in shown] for name, text in _AFTER.items()}
    if any(result.main.reconstruction is not None for result in shown):
        columns[_RECONSTRUCTION] = [number(result.main.reconstruction) for result in shown]
    networks = {name: [text(result) for result in shown] for name, text in _NETWORK.items()}
    return columns | {name: texts for name, texts in networks.items() if len(set(texts)) > 1}


def version_warning(results: Sequence[Result]) -> str | None:
    """One line of warning if `results` come from different commits or versions, which may be why they differ.

    A commit with local changes counts as another than the commit itself.
    """
    differing = []
    commits = {
        f"{result.git_commit[:7]}{' with changes' if result.git_dirty else ''}"
        for result in results
        if result.git_commit
    }
    if len(commits) > 1:
        differing.append(f"commits {some(sorted(commits))}")
    versions: dict[str, set[str]] = {}
    for result in results:
        for package, version in result.versions.items():
            versions.setdefault(package, set()).add(version)
    differing += [f"{package} {some(sorted(found))}" for package, found in sorted(versions.items()) if len(found) > 1]
    return f"careful: made with different {'; '.join(differing)}" if differing else None


def absent_numbers(results: Sequence[Result]) -> list[str]:
    """A line for each number beside the main one that some of the results were to have and do not, with the reason."""
    lacking: dict[tuple[str, str], int] = {}
    for result in results:
        for name in result.measured:
            if name != result.metric and result.value(name) is None:
                reason = result.measure(name).reason or "no reason was recorded"
                lacking[name, reason] = lacking.get((name, reason), 0) + 1
    return [f"no {name} of {things(amount, 'cell')}: {reason}" for (name, reason), amount in lacking.items()]


def rank(result: Result) -> tuple[bool, float]:
    """What orders cells by their main numbers, the best first."""
    return statistics.rank(result, result.metric)
