"""Results as a researcher reads them in a terminal: what was compared, what is best, where it lies, what to run next.

In a terminal there are colours and rules; in a pipe only plain text, where columns are two spaces or more apart and
none is empty. Cells are ranked only against cells that were measured alike, and those that chance alone may have put
behind the best are marked (see `statistics`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffsweep.report import terminal_image
from diffsweep.report.console import here, lines, show, sign_of
from diffsweep.report.failure import Failure, by_reason
from diffsweep.report.format import count, duration, listed, number, some, things, with_error
from diffsweep.report.leaderboard import rank, show_group
from diffsweep.report.next_commands import next_commands
from diffsweep.report.protocol import (
    TITLES,
    MeasurementProtocol,
    by_protocol,
    differing_fields,
    field_text,
    with_main_number,
)
from diffsweep.report.saturation import is_saturated, saturation_text, share_text
from diffsweep.report.seeds import rows_of
from diffsweep.report.verdict import verdict
from diffsweep.sweep.store.record import Cell
from diffsweep.sweep.store.result import CHOICES, Measure, Result

# Of the cells that failed for one reason, as many are named.
_EXAMPLES = 3

# Of the numbers of one run beside its main one, as many are shown: there may be some for every label.
_NUMBERS = 12

# What people call the state of a cell without result.
_STATES = {"failed": "failed", "blocked": "not run", "missing": "not done"}


def show_result(result: Result, console: Console | None = None, runs: str | Path = "runs") -> None:
    """Print one finished run: its choices, its numbers beside their floors, times, files, and what to run next.

    `runs` is the folder that it lies under.
    """
    console = console or here()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    if result.images is not None:
        table.add_row("images", Text(result.images))
    for group, option in result.options.items():
        if group in CHOICES:
            table.add_row(group, Text(option))
    if result.images is None:
        table.add_row("network calls", _calls(result))
    sign, metric = sign_of(console), result.metric or "metric"
    floor_samples = result.floor_samples if result.floor_samples != result.samples else None
    table.add_row(Text(metric), Text(_number(result.measure(metric), sign) + _floor(result.main, floor_samples)))
    if said := verdict(result.main):
        table.add_row("verdict", Text(said))
    others = [result.measure(name) for name in result.measured if name != metric]
    for measure in others[:_NUMBERS]:
        table.add_row(Text(measure.name), Text(_number(measure, sign) + _floor(measure)))
    if len(others) > _NUMBERS:
        table.add_row("", f"and {count(len(others) - _NUMBERS)} more in result.json")
    if result.note:
        table.add_row("careful", Text(result.note))
    if result.saturated is not None:
        table.add_row("saturated", Text(saturation_text(result)))
    if result.images is not None:
        table.add_row("samples", f"{count(result.samples)} of {count(result.images_available)}")
    else:
        table.add_row("samples", f"{count(result.samples)} in {duration(result.sample_seconds)}")
    if result.imported_from is not None:
        table.add_row("training", Text(f"none: imported from {result.imported_from}"))
    elif result.images is None:
        kept = result.fit_kept_step
        best = f", weights of step {count(kept)}" if kept not in (None, result.fit_steps) else ""
        table.add_row("training", f"{count(result.fit_steps)} steps in {duration(result.fit_seconds)}{best}")
    if result.autoencoder is not None:
        table.add_row("autoencoder", Text(f"{result.autoencoder}, made in {duration(result.autoencoder_seconds)}"))
    if result.reference_samples is not None:
        split = f", split {result.reference_split}" if result.reference_split else ""
        table.add_row("reference", f"{count(result.reference_samples)} real samples{split}")
    if result.parameters is not None:
        flops = f", {number(result.call_flops / 1e9)} GFLOP a call and sample" if result.call_flops else ""
        table.add_row("parameters", f"{count(result.parameters)}{flops}")
    show(console, table)
    cell = Cell.of(result, runs)
    lines(console, "")
    pictures = cell.folder / (result.grid or cell.samples_file.name)
    terminal_image.show(pictures, console)
    lines(console, f"pictures  {pictures}")
    lines(console, f"numbers   {cell.result_file}")
    lines(console, "", "next:")
    for command, why in next_commands(result, runs):
        lines(console, f"  {command}", f"    # {why}")


def show_sweep(
    results: Sequence[Result],
    failures: Sequence[Failure] = (),
    console: Console | None = None,
    runs: str | Path = "runs",
    ranked: bool = True,
    limit: int | None = None,
    metric: str | None = None,
) -> None:
    """Print finished cells, best first unless not `ranked`, at most `limit` a table, then those that failed and why.

    Jackknife values that `results` lack are read from the folder `runs`. `metric` is a number to rank by other than the
    main one of each cell. Cells that were measured differently (see `MeasurementProtocol`) come in tables of their own.

    Raises ValueError for a `metric` that no result has.
    """
    console = console or here()
    chosen = with_main_number(results, metric) if metric is not None and results else results
    if len(chosen) < len(results):
        lines(console, f"left out: {things(len(results) - len(chosen), 'run')} without {metric}")
    groups = by_protocol(chosen)
    differing = differing_fields(list(groups))
    if differing:
        values = [_field_values(field, groups) for field in differing]
        lines(console, f"{len(groups)} tables, for numbers of different {listed(values)} cannot be ranked", "")
    for protocol, group in groups.items():
        own = [(TITLES[field], getattr(protocol, field)) for field in differing if field != "metric"]
        heading = "".join(f"; {title} {field_text(value)}" for title, value in own)
        show_group(sorted(group, key=rank) if ranked else group, console, ranked, limit, runs, heading)
    if not results:
        lines(console, "no finished runs")
    if failures:
        _show_failures(failures, console, runs)


def _show_failures(failures: Sequence[Failure], console: Console, runs: str | Path) -> None:
    counts = Counter(_STATES[failure.state] for failure in failures)
    lines(console, f"{listed([f'{amount} {state}' for state, amount in counts.items()])}:")
    for reason, group in by_reason(failures, runs).items():
        lines(console, *(f"  {failure.title}" for failure in group[:_EXAMPLES]))
        if len(group) > _EXAMPLES:
            lines(console, f"  ... and {count(len(group) - _EXAMPLES)} more")
        lines(console, f"    {reason}")
        errors = (failure.error_file(runs) for failure in group)
        log = next((failure.log for failure in group if failure.log), None)
        if file := next((error for error in errors if error.exists()), log):
            lines(console, f"    see {file}")


def _field_values(field: str, protocols: Iterable[MeasurementProtocol]) -> str:
    """A field of the protocol with the values that it has, for people."""
    values = {getattr(protocol, field) for protocol in protocols}
    ordered = sorted(values, key=lambda value: (isinstance(value, str), value is None, value))
    return f"{TITLES[field]} ({some([field_text(value) for value in ordered])})"


def _number(measure: Measure, sign: str = "+-") -> str:
    text = with_error(measure.value, measure.half, sign)
    return text if measure.reason is None else f"{text} ({measure.reason})"


def _floor(measure: Measure, samples: float | None = None) -> str:
    """The floor of a number; of so many real samples, if they are not as many as the samples.

    With that of an autoencoder, below which no model of its latents comes.
    """
    if measure.floor is None:
        return ""
    of = f" with {count(samples)} samples" if samples is not None else ""
    known = measure.reconstruction
    after = "" if known is None else f", after the autoencoder: {number(known)}"
    return f"  (real against real: {number(measure.floor)}{of}{after})"


def _calls(result: Result) -> str:
    text = f"{count(result.nfe)} a sample, {count(result.steps)} steps"
    requested = result.nfe_requested
    return text if requested in (None, result.nfe) else f"{text} ({count(requested)} asked)"


def line(result: Result) -> str:
    """One finished run in one line, as a sweep shows it while it goes on."""
    choices = " ".join(f"{group}={option}" for group, option in result.options.items() if group in CHOICES)
    saturated = f"  {share_text(result.saturated)} of values saturated" if is_saturated(result) else ""
    return f"done {choices}  {result.metric} {_number(result.main)}{saturated}"


def show_where(
    results: Sequence[Result], table: Path, report: Path, console: Console | None = None, runs: str | Path = "runs"
) -> None:
    """Print where a sweep's report, table and the best pictures of each of its tables lie, and what to run next."""
    console = console or here()
    if report.exists():
        lines(console, f"report         {report}")
    lines(console, f"table          {table}")
    bests = [_best(group, runs) for group in by_protocol(results).values()]
    for best in bests[:_EXAMPLES]:
        cell = Cell.of(best, runs)
        pictures = cell.folder / (best.grid or cell.samples_file.name)
        if len(bests) == 1:
            terminal_image.show(pictures, console)
        lines(console, f"best pictures  {pictures}")
    lines(console, "", "next:")
    commands = next_commands(bests[0], runs)
    # Another sampler is no news after a sweep of them.
    for command, why in commands[1:2] or commands[:1]:
        lines(console, f"  {command}", f"    # the best, with {why}")


def _best(group: Sequence[Result], runs: str | Path) -> Result:
    """The best cell of the best method, which need not be the best of all cells: of several seeds one is lucky."""
    rows = rows_of(group, lambda result: Cell.of(result, runs).config())
    return min(rows[0].cells, key=rank)


def show_resume(command: str, console: Console | None = None) -> None:
    """Print the command that does what a sweep lacks."""
    lines(console or here(), f"  {command}", "    # what is missing or failed, and only that")
