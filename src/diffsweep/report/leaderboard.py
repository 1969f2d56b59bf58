"""One table of cells that were measured alike, best first: what differs, their numbers, who is sure to win.

Columns that are the same in all rows are said once, above. Those that chance alone may have put behind the best are
marked (see `compare`).
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
from diffsweep.report.fill_defaults import spelled
from diffsweep.report.format import count, duration, listed, number, some, things, with_error
from diffsweep.report.overrides import overridden
from diffsweep.report.statistics import Difference, half
from diffsweep.sweep.store.record import CHOICES, Cell

# What a narrow terminal goes without, first to last.
_DISPENSABLE = ("steps", "sampling", "training", "floor", "behind best")

Result = Mapping[str, Any]

# Name, key in the result and form of the columns behind choices and overrides; the nameless one is the metric's place.
_COLUMNS: dict[str, tuple[str, Callable[[object], str]]] = {
    "steps": ("steps", count),
    "NFE": ("nfe", count),
    "": ("METRIC", number),
    "floor": ("METRIC_floor", number),
    "samples": ("samples", count),
    "training": ("fit_seconds", duration),
    "sampling": ("sample_seconds", duration),
}
_SHOWN_ANYWAY = (*CHOICES, "images", "sampler.nfe")


def show_group(
    group: Sequence[Result], console: Console, best_first: bool, limit: int | None, runs: str | Path, told: str
) -> None:
    """Print the table of a `group` of cells that were measured alike, as `told` says, at most `limit` of them."""
    ranked = group[:limit]
    metric, sign = str(ranked[0].get("metric")), sign_of(console)
    standing, legend = _standing(group, ranked, metric, runs, sign)
    alike = spelled(ranked, lambda result: Cell.of(result, runs).config())
    columns = _columns(alike, metric, standing, sign)
    always = {metric, *standing} | ({"#", "images", "sampler", "NFE"} if len(ranked) == 1 else set())
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
    direction = "larger" if statistics.larger_is_better(metric) else "smaller"
    ours = [result.get("fit") for result in group if result.get("images") is None]
    counted = [f"{things(len(ours), 'run')} of {things(len(set(ours)), 'training')}"] if ours else []
    if len(ours) < len(group):
        counted.append(things(len(group) - len(ours), "set") + " of given images")
    console.print(Text(f"{listed(counted)}, by {metric} ({direction} is better){told}"))
    if known := {name: text for name, text in shared.items() if text != "-"}:
        whom = "all" if len(ranked) == len(group) else "all shown"
        console.print(Text(f"{whom}: " + ", ".join(f"{name} {text}" for name, text in known.items())))
    show(console, table)
    for line in legend:
        console.print(Text(line))
    if len(ranked) < len(group):
        console.print(Text(f"the first {count(len(ranked))} of {count(len(group))}; --limit 0 shows all"))
    if (warning := mixed(ranked)) is not None:
        lines(console, warning)
    if left_out:
        console.print(Text(f"a wider terminal also shows {', '.join(left_out)}"))
    lost = [result for result in ranked if statistics.finite(result, metric) is None]
    if lost:
        reasons = dict.fromkeys(str(result.get(f"{metric}_reason") or "no reason was recorded") for result in lost)
        last = ", ranked last" if best_first else ""
        console.print(Text(f"- : no {metric}{last}: {some(list(reasons))}"))
    lines(console, "")


def _standing(
    group: Sequence[Result], ranked: Sequence[Result], metric: str, runs: str | Path, sign: str
) -> tuple[dict[str, list[str]], list[str]]:
    """Columns that tell how sure it is that a cell is behind the best, and lines that explain them; none if unknown."""

    def read(result: Result) -> Result:
        # Lists of very many results come without what only the intervals of differences are made of.
        key = f"{metric}_jackknife"
        if key in result or f"{metric}_low" not in result:
            return result
        return {**result, key: (Cell.of(result, runs).result() or {}).get(key)}

    best, differences = statistics.against_best(group, metric, ranked, read)
    if not any(differences):
        return {}, []

    def mark(result: Result, found: Difference | None) -> str:
        if result is best:
            return "*"
        if found is None:
            return "?" if statistics.finite(result, metric) is not None else ""
        return "" if found.told_apart else "="

    marks = [mark(result, found) for result, found in zip(ranked, differences, strict=True)]
    behind = [
        "" if found is None else "+" * (found.value >= 0) + with_error(found.value, found.half, sign)
        for found in differences
    ]
    legend = []
    if "=" in marks:
        said = "= cannot be told from the best: the interval of its difference contains 0"
        legend.append(f"{said}; the truly best is * or = with 95 %")
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
    ranked: Sequence[Result], metric: str, standing: Mapping[str, list[str]], sign: str
) -> dict[str, list[str]]:
    """All columns of a table, from left to right, as texts; `standing` goes behind the metric."""
    columns: dict[str, list[str]] = {"#": [str(place) for place in range(1, len(ranked) + 1)]}
    if any(result.get("images") is not None for result in ranked):
        columns["images"] = [number(result.get("images")) for result in ranked]
    for choice in CHOICES:
        columns[choice] = [number(result.get(choice)) for result in ranked]
    told = [overridden(result) for result in ranked]
    keys = list(dict.fromkeys(key for one in told for key in one if key not in _SHOWN_ANYWAY))
    # What every run was told alike is in the choices, or no news.
    keys = [key for key in keys if len({one.get(key) for one in told}) > 1]
    for key in keys:
        last = key.rpartition(".")[2]
        taken = {*_COLUMNS, *standing}
        unique = [other.rpartition(".")[2] for other in keys].count(last) == 1 and last not in taken
        columns[last if unique and last != metric else key] = [one.get(key, "-") for one in told]
    for name, (key, text) in _COLUMNS.items():
        if name:
            columns[name] = [text(result.get(key.replace("METRIC", metric))) for result in ranked]
        else:
            columns[metric] = [with_error(result.get(metric), half(result, metric), sign) for result in ranked]
            columns |= standing
    return columns


def mixed(results: Sequence[Result]) -> str | None:
    """One line of warning if `results` come from different commits or versions, which may be why they differ.

    A commit with local changes counts as another than the commit itself.
    """
    said = []
    commits = {
        f"{str(result['git_commit'])[:7]}{' with changes' if result.get('git_dirty') else ''}"
        for result in results
        if result.get("git_commit")
    }
    if len(commits) > 1:
        said.append(f"commits {some(sorted(commits))}")
    for key in sorted({key for result in results for key in result if key.startswith("version_")}):
        versions = {str(result[key]) for result in results if result.get(key)}
        if len(versions) > 1:
            said.append(f"{key.removeprefix('version_').replace('_', '-')} {some(sorted(versions))}")
    return f"careful: made with different {'; '.join(said)}" if said else None


def rank(result: Result) -> tuple[bool, float]:
    """What orders cells by their main numbers, the best first."""
    return statistics.rank(result, str(result.get("metric")))
