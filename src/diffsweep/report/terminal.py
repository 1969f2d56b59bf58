"""Results as a researcher reads them in a terminal: what was compared, what is best, where it lies, what to run next.

In a terminal there are colours and rules; in a pipe only plain text, where columns are two spaces or more apart and
none is empty. Cells are ranked only against cells that were measured alike, and those that chance alone may have put
behind the best are marked (see `compare`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffsweep.report import statistics, terminal_image
from diffsweep.report.console import here, lines, show, sign_of
from diffsweep.report.format import count, duration, listed, number, some, things, with_error
from diffsweep.report.leaderboard import rank, show_group
from diffsweep.report.next_commands import next_commands
from diffsweep.report.statistics import half
from diffsweep.sweep.store.record import CHOICES, Cell

# Of the cells that failed for one reason, as many are named.
_EXAMPLES = 3

# Of the numbers of one run beside its main one, as many are shown: there may be some for every label.
_NUMBERS = 12

# How a cell without result stands, where it did not fail itself.
_NO_RESULT = {"blocked": "not run", "missing": "not done"}

Result = Mapping[str, Any]


def show_result(result: Result, console: Console | None = None, runs: str | Path = "runs") -> None:
    """Print one finished run: its choices, its numbers beside their floors, times, files, and what to run next.

    `result` is the content of a result.json that lies under the folder `runs`.
    """
    console = console or here()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for choice in ("images", *CHOICES):
        if result.get(choice) is not None:
            table.add_row(choice, Text(str(result[choice])))
    if result.get("images") is None:
        table.add_row("network calls", _calls(result))
    sign, metric = sign_of(console), str(result.get("metric") or "metric")
    table.add_row(Text(metric), Text(_score(result, metric, sign) + _floor(result, metric, with_samples=True)))
    others = [name for name in statistics.numbers(result) if name != metric]
    for name in others[:_NUMBERS]:
        table.add_row(Text(name), Text(_score(result, name, sign) + _floor(result, name)))
    if len(others) > _NUMBERS:
        table.add_row("", f"and {count(len(others) - _NUMBERS)} more in result.json")
    if result.get("evaluation_note"):
        table.add_row("careful", Text(str(result["evaluation_note"])))
    if result.get("images") is not None:
        table.add_row("samples", f"{count(result.get('samples'))} of {count(result.get('images_available'))}")
    else:
        table.add_row("samples", f"{count(result.get('samples'))} in {duration(result.get('sample_seconds'))}")
        trained, kept = result.get("fit_steps"), result.get("fit_kept_step")
        best = f", weights of step {count(kept)}" if kept not in (None, trained) else ""
        table.add_row("training", f"{count(trained)} steps in {duration(result.get('fit_seconds'))}{best}")
    if result.get("reference_samples") is not None:
        split = f", split {result['reference_split']}" if result.get("reference_split") else ""
        table.add_row("reference", f"{count(result['reference_samples'])} real samples{split}")
    if result.get("parameters") is not None:
        table.add_row("parameters", count(result["parameters"]))
    show(console, table)
    cell = Cell.of(result, runs)
    lines(console, "")
    pictures = cell.folder / str(result.get("grid") or cell.samples_file.name)
    terminal_image.show(pictures, console)
    lines(console, f"pictures  {pictures}")
    lines(console, f"numbers   {cell.result_file}")
    lines(console, "", "next:")
    for command, why in next_commands(result, runs):
        lines(console, f"  {command}", f"    # {why}")


def show_sweep(
    results: Sequence[Result],
    failures: Sequence[Result] = (),
    console: Console | None = None,
    runs: str | Path = "runs",
    ranked: bool = True,
    limit: int | None = None,
    metric: str | None = None,
) -> None:
    """Print finished cells, best first unless not `ranked`, at most `limit` a table, then those that failed and why.

    `results` are contents of result.json files; NAME_jackknife is read from the folder `runs` where it is left out.
    `metric` is a number to rank by other than the main one of each cell. Cells that were measured differently
    (`statistics.PROTOCOL`) come in tables of their own.

    A failure needs `fit` and `cell` and may have `overrides`, `name` (what distinguishes it), `state` (as in
    `sweep.status`), `reason` (one line), `error` and `log` (paths); what is absent is read from the folder `runs`.

    Raises ValueError for a `metric` that no result has.
    """
    console = console or here()
    chosen = statistics.by(results, metric) if metric is not None and results else results
    if len(chosen) < len(results):
        lines(console, f"left out: {things(len(results) - len(chosen), 'run')} without {metric}")
    groups = _groups(chosen)
    differing = statistics.apart(list(groups))
    if differing:
        named = [_differing(place, groups) for place in differing]
        lines(console, f"{len(groups)} tables, for numbers of different {listed(named)} cannot be ranked", "")
    for how, group in groups.items():
        named = [(statistics.PROTOCOL[place][1], how[place]) for place in differing]
        told = "".join(f"; {called} {_protocol_text(value)}" for called, value in named if called != "metric")
        show_group(sorted(group, key=rank) if ranked else group, console, ranked, limit, runs, told)
    if not results:
        lines(console, "no finished runs")
    if failures:
        lines(console, f"{listed(_counted(failures))}:")
    alike: dict[str, list[Result]] = {}
    for failure in failures:
        reason = failure.get("reason") or Cell.of(failure, runs).error() or "no reason was recorded"
        alike.setdefault(str(reason), []).append(failure)
    for reason, hit in alike.items():
        for failure in hit[:_EXAMPLES]:
            lines(console, f"  {failure.get('name') or failure.get('overrides') or failure.get('cell')}")
        if len(hit) > _EXAMPLES:
            lines(console, f"  ... and {count(len(hit) - _EXAMPLES)} more")
        lines(console, f"    {reason}")
        errors = (Path(failure.get("error") or Cell.of(failure, runs).error_file) for failure in hit)
        log = next((failure["log"] for failure in hit if failure.get("log")), None)
        if seen := next((error for error in errors if error.exists()), log):
            lines(console, f"    see {seen}")


def _groups(results: Sequence[Result]) -> dict[tuple[Any, ...], list[Result]]:
    """Results by how they were measured."""
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(statistics.protocol(result), []).append(result)
    return groups


def _differing(place: int, groups: Mapping[tuple[Any, ...], object]) -> str:
    values = sorted({how[place] for how in groups}, key=lambda value: (isinstance(value, str), value is None, value))
    return f"{statistics.PROTOCOL[place][1]} ({some([_protocol_text(value) for value in values])})"


def _protocol_text(value: object) -> str:
    return "none" if value is None else count(value)


def _counted(failures: Sequence[Result]) -> list[str]:
    counts = Counter(_NO_RESULT.get(str(failure.get("state")), "failed") for failure in failures)
    return [f"{amount} {what}" for what, amount in counts.items()]


def _score(result: Result, name: str, sign: str = "+-") -> str:
    text = with_error(result.get(name), half(result, name), sign)
    reason = result.get(f"{name}_reason")
    return text if reason is None else f"{text} ({reason})"


def _floor(result: Result, name: str, with_samples: bool = False) -> str:
    if (floor := result.get(f"{name}_floor")) is None:
        return ""
    among = result.get("floor_samples") if with_samples else None
    of = f" with {count(among)} samples" if among is not None and among != result.get("samples") else ""
    return f"  (real against real: {number(floor)}{of})"


def _calls(result: Result) -> str:
    asked, used = result.get("nfe_asked"), result.get("nfe")
    text = f"{count(used)} a sample, {count(result.get('steps'))} steps"
    return text if asked is None or asked == used else f"{text} ({count(asked)} asked)"


def line(result: Result) -> str:
    """One finished run in one line, as a sweep shows it while it goes on."""
    choices = " ".join(f"{choice}={result[choice]}" for choice in CHOICES if result.get(choice) is not None)
    metric = str(result.get("metric"))
    return f"done {choices}  {metric} {_score(result, metric)}"


def show_where(
    results: Sequence[Result], table: Path, report: Path, console: Console | None = None, runs: str | Path = "runs"
) -> None:
    """Print where a sweep's report, table and the best pictures of each of its tables lie, and what to run next."""
    console = console or here()
    if report.exists():
        lines(console, f"report         {report}")
    lines(console, f"table          {table}")
    bests = [min(group, key=rank) for group in _groups(results).values()]
    for best in bests[:_EXAMPLES]:
        cell = Cell.of(best, runs)
        pictures = cell.folder / str(best.get("grid") or cell.samples_file.name)
        if len(bests) == 1:
            terminal_image.show(pictures, console)
        lines(console, f"best pictures  {pictures}")
    lines(console, "", "next:")
    for command, why in next_commands(bests[0])[1:2]:
        lines(console, f"  {command}", f"    # the best, with {why}")


def show_resume(command: str, console: Console | None = None) -> None:
    """Print the command that does what a sweep lacks."""
    lines(console or here(), f"  {command}", "    # what is missing or failed, and only that")
