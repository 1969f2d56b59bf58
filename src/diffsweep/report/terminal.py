"""Results as a researcher reads them in a terminal: what was compared, what is best, where it lies, what to run next.

In a terminal there are colours and rules; in a pipe only plain text. Cells are ranked only against cells that were
measured alike.
"""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffsweep.sweep.record import Cell, Fit

CHOICES = ("diffuser", "sampler", "schedule", "backbone", "dataset")

# Main metrics that are better when larger; for all others (distances, errors) less is better.
LARGER_IS_BETTER = ("accuracy", "coverage", "density", "inception_score", "precision", "recall")

# What must agree for two numbers to be compared at all.
_MEASURED_BY = ("metric", "samples", "dataset")

# What a narrow terminal goes without, first to last.
_DISPENSABLE = ("steps", "sampling", "training", "floor")

_UNBOUNDED = 10_000

# Of the cells that failed for one reason, as many are named.
_EXAMPLES = 3

# How a cell without result stands, where it did not fail itself.
_NO_RESULT = {"blocked": "not run", "missing": "not done"}

Result = Mapping[str, Any]


def show_result(result: Result, console: Console | None = None, runs: str | Path = "runs") -> None:
    """Print one finished run: its choices, its main metric beside the floor, times, files, and what to run next.

    `result` is the content of a result.json that lies under the folder `runs`.
    """
    console = console or _console()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for choice in CHOICES:
        if result.get(choice) is not None:
            table.add_row(choice, Text(str(result[choice])))
    table.add_row("network calls", _calls(result))
    table.add_row(Text(str(result.get("metric") or "metric")), _score(result))
    table.add_row("samples", f"{count(result.get('samples'))} in {duration(result.get('sample_seconds'))}")
    table.add_row("training", f"{count(result.get('fit_steps'))} steps in {duration(result.get('fit_seconds'))}")
    if result.get("parameters") is not None:
        table.add_row("parameters", count(result["parameters"]))
    console.print(table)
    cell = _cell(result, runs)
    _lines(console, "")
    _lines(console, f"pictures  {cell.folder / str(result.get('grid') or cell.samples_file.name)}")
    _lines(console, f"numbers   {cell.result_file}")
    _lines(console, "", "next:")
    for command, why in next_commands(result):
        _lines(console, f"  {command}", f"    # {why}")


def show_sweep(
    results: Sequence[Result],
    failures: Sequence[Result] = (),
    console: Console | None = None,
    runs: str | Path = "runs",
    ranked: bool = True,
    limit: int | None = None,
) -> None:
    """Print finished cells, best first unless not `ranked`, at most `limit` a table, then those that failed and why.

    `results` are contents of result.json files. A failure needs `fit` and `cell` and may have `overrides`, `name` (what
    distinguishes it), `state` (as in `sweep.state`), `reason` (one line), `error` and `log` (paths); what is absent is
    read from the folder `runs`. Cells of different metrics, numbers of samples or datasets come in tables of their own.
    """
    console = console or _console()
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(tuple(result.get(key) for key in _MEASURED_BY), []).append(result)
    if len(groups) > 1:
        differing = [key for i, key in enumerate(_MEASURED_BY) if len({group[i] for group in groups}) > 1]
        _lines(console, f"{len(groups)} tables, for numbers of different {_listed(differing)} cannot be ranked", "")
    for group in groups.values():
        _show_group(sorted(group, key=_rank) if ranked else group, console, ranked, limit)
    if not results:
        _lines(console, "no finished runs")
    if failures:
        _lines(console, f"{_listed(_counted(failures))}:")
    alike: dict[str, list[Result]] = {}
    for failure in failures:
        reason = failure.get("reason") or _cell(failure, runs).error() or "no reason was recorded"
        alike.setdefault(str(reason), []).append(failure)
    for reason, hit in alike.items():
        for failure in hit[:_EXAMPLES]:
            _lines(console, f"  {failure.get('name') or failure.get('overrides') or failure.get('cell')}")
        if len(hit) > _EXAMPLES:
            _lines(console, f"  ... and {count(len(hit) - _EXAMPLES)} more")
        _lines(console, f"    {reason}")
        errors = (Path(failure.get("error") or _cell(failure, runs).error_file) for failure in hit)
        log = next((failure["log"] for failure in hit if failure.get("log")), None)
        if seen := next((error for error in errors if error.exists()), log):
            _lines(console, f"    see {seen}")


def _counted(failures: Sequence[Result]) -> list[str]:
    counts = Counter(_NO_RESULT.get(str(failure.get("state")), "failed") for failure in failures)
    return [f"{amount} {what}" for what, amount in counts.items()]


def next_commands(result: Result) -> list[tuple[str, str]]:
    """A few sensible commands to type after the run `result`, each with what it is good for."""
    kept = [word for word in split_overrides(str(result.get("overrides") or "")) if not word.startswith("hydra")]

    def command(*changed: str, multirun: bool = False) -> str:
        groups = {word.partition("=")[0] for word in changed}
        # Another option of a group may lack the settings of this one; only the budget is common to all samplers.
        gone = tuple(f"{group}{mark}" for group in groups if group in CHOICES for mark in "./")
        keys = [(word.lstrip("+").partition("=")[0], word) for word in kept]
        words = [word for key, word in keys if key not in groups and (key == "sampler.nfe" or not key.startswith(gone))]
        return " ".join(["python train.py", *(["-m"] if multirun else []), *map(shlex.quote, [*words, *changed])])

    def other(group: str, first: str, second: str) -> str:
        return second if result.get(group) == first else first

    sampler, schedule = other("sampler", "heun", "ddim"), other("schedule", "cosine", "linear")
    both = [f"{group}={result.get(group) or kind},{kind}" for group, kind in _pairs(sampler, schedule, result)]
    commands = [(command(f"sampler={sampler}"), "another sampler: reuses this training")]
    if isinstance(asked := result.get("nfe_asked", result.get("nfe")), int):
        commands.append((command(f"sampler.nfe={2 * asked}"), "twice the network calls: reuses this training"))
    commands.append((command(f"schedule={schedule}"), "another noise schedule: trains again"))
    commands.append((command(*both, multirun=True), "all four combinations in one table: two trainings"))
    return commands


def _pairs(sampler: str, schedule: str, result: Result) -> list[tuple[str, str]]:
    defaults = {"sampler": "ddim" if sampler == "heun" else "heun", "schedule": "linear"}
    chosen = {group: result.get(group) or default for group, default in defaults.items()}
    return [(group, kind) for group, kind in (("sampler", sampler), ("schedule", schedule)) if chosen[group] != kind]


def split_overrides(text: str) -> list[str]:
    """The overrides in a space-joined string; spaces inside of a value stay there."""
    return [word for word in re.split(r"\s+(?=~|\+{0,2}[A-Za-z_][\w./@:-]*=)", text.strip()) if word]


def number(value: object) -> str:
    """`value` to 4 significant digits, without exponent between 0.0001 and a million; "-" for null."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3e}"
    rounded = float(f"{value:.4g}")
    digits = 3 - math.floor(math.log10(abs(rounded))) if rounded else 0
    return f"{rounded:.{max(0, digits)}f}"


def count(value: object) -> str:
    """A number of things, with its thousands set apart: 50,000; "-" for null."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else number(value)


def duration(seconds: object) -> str:
    """Seconds for people: `0.3 s`, `42 s`, `1 min 42 s`, `2 h 05 min`, `3 d 4 h`; "-" for null."""
    if not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
        return "-"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def _console() -> Console:
    console = Console()
    # Lines for grep and awk are never wrapped; rich takes a pipe for 80 columns wide.
    return console if console.is_terminal else Console(width=_UNBOUNDED)


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
        said.append(f"commits {_some(commits)}")
    for key in sorted({key for result in results for key in result if key.startswith("version_")}):
        versions = {str(result[key]) for result in results if result.get(key)}
        if len(versions) > 1:
            said.append(f"{key.removeprefix('version_').replace('_', '-')} {_some(versions)}")
    return f"careful: made with different {'; '.join(said)}" if said else None


def _some(words: set[str], most: int = 4) -> str:
    shown = sorted(words)[:most]
    return _listed([", ".join(shown), f"{len(words) - most} more"] if len(words) > most else shown)


def _show_group(group: Sequence[Result], console: Console, best_first: bool, limit: int | None) -> None:
    ranked = group[:limit]
    metric = str(ranked[0].get("metric"))
    columns = _columns(ranked, metric)
    always = {"#", "sampler", "NFE", metric} if len(ranked) == 1 else {metric}
    shared = {name: texts[0] for name, texts in columns.items() if len(set(texts)) == 1 and name not in always}
    varying = {name: texts for name, texts in columns.items() if name not in shared}
    table = _table(varying, console, best_first)
    # A narrow terminal shows the ranking whole rather than everything in shreds.
    left_out = []
    for name in _DISPENSABLE:
        wanted = console.measure(table, options=console.options.update(width=_UNBOUNDED)).maximum
        if wanted > console.width and name in varying:
            left_out.append(name)
            del varying[name]
            table = _table(varying, console, best_first)
    direction = "larger" if metric in LARGER_IS_BETTER else "smaller"
    fits = len({result.get("fit") for result in group})
    console.print(
        Text(f"{_things(len(group), 'run')} of {_things(fits, 'training')}, by {metric} ({direction} is better)")
    )
    if known := {name: text for name, text in shared.items() if text != "-"}:
        whom = "all" if len(ranked) == len(group) else "all shown"
        console.print(Text(f"{whom}: " + ", ".join(f"{name} {text}" for name, text in known.items())))
    console.print(table)
    if len(ranked) < len(group):
        console.print(Text(f"the first {count(len(ranked))} of {count(len(group))}; --limit 0 shows all"))
    if (warning := mixed(ranked)) is not None:
        _lines(console, warning)
    if left_out:
        console.print(Text(f"a wider terminal also shows {', '.join(left_out)}"))
    if any(result.get(metric) is None for result in ranked):
        reasons = sorted({str(result.get(f"{metric}_reason")) for result in ranked if result.get(metric) is None})
        console.print(Text(f"- : no finite {metric} ({', '.join(reasons)}): the samples diverged, ranked last"))
    _lines(console, "")


def _table(columns: Mapping[str, Sequence[str]], console: Console, best_first: bool) -> Table:
    plain = not console.is_terminal
    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, header_style="" if plain else "bold")
    for name in columns:
        numeric = name not in CHOICES and any(text[:1].isdigit() for text in columns[name])
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    rows = list(zip(*columns.values(), strict=True))
    for row in rows:
        best = best_first and row is rows[0] and len(rows) > 1 and not plain
        table.add_row(*map(Text, row), style="bold" if best else None)
    return table


def _columns(ranked: Sequence[Result], metric: str) -> dict[str, list[str]]:
    """All columns of a table, from left to right, as texts."""
    columns: dict[str, list[str]] = {"#": [str(place) for place in range(1, len(ranked) + 1)]}
    for choice in CHOICES:
        columns[choice] = [number(result.get(choice)) for result in ranked]
    overridden = [_overridden(result) for result in ranked]
    keys = list(dict.fromkeys(key for one in overridden for key in one))
    # What every run was told alike is in the choices, or no news.
    keys = [key for key in keys if len({one.get(key) for one in overridden}) > 1]
    for key in keys:
        last = key.rpartition(".")[2]
        unique = [other.rpartition(".")[2] for other in keys].count(last) == 1 and last not in _COLUMNS
        columns[last if unique and last != metric else key] = [one.get(key, "-") for one in overridden]
    for name, (key, text) in _COLUMNS.items():
        columns[name or metric] = [text(result.get(key.replace("METRIC", metric))) for result in ranked]
    return columns


def _overridden(result: Result) -> dict[str, str]:
    pairs = [word.lstrip("+").partition("=") for word in split_overrides(str(result.get("overrides") or ""))]
    return {key: value for key, _, value in pairs if key not in _SHOWN_ANYWAY and not key.startswith("hydra")}


def _rank(result: Result) -> tuple[bool, float]:
    metric = result.get("metric")
    value = result.get(str(metric))
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return True, 0.0
    return False, -value if metric in LARGER_IS_BETTER else value


def _score(result: Result) -> str:
    metric = result.get("metric")
    text = number(result.get(str(metric)))
    if (reason := result.get(f"{metric}_reason")) is not None:
        text += f" ({reason}: the samples diverged)"
    if (floor := result.get(f"{metric}_floor")) is None:
        return text
    among = result.get("floor_samples")
    of = f" with {count(among)} samples" if among is not None and among != result.get("samples") else ""
    return f"{text}  (real against real: {number(floor)}{of})"


def _calls(result: Result) -> str:
    asked, used = result.get("nfe_asked"), result.get("nfe")
    text = f"{count(used)} a sample, {count(result.get('steps'))} steps"
    return text if asked is None or asked == used else f"{text} ({count(asked)} asked)"


def _cell(result: Result, runs: str | Path) -> Cell:
    return Fit(Path(runs) / "fits" / str(result.get("fit"))).cell(str(result.get("cell")))


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1])] * (len(words) > 1) + list(words[-1:]))


def _things(amount: int, thing: str) -> str:
    return f"{amount} {thing}" if amount == 1 else f"{amount} {thing}s"


# Name, key in the result and form of the columns behind choices and overrides; the nameless one is the metric.
_COLUMNS: dict[str, tuple[str, Callable[[object], str]]] = {
    "steps": ("steps", count),
    "NFE": ("nfe", count),
    "": ("METRIC", number),
    "floor": ("METRIC_floor", number),
    "samples": ("samples", count),
    "training": ("fit_seconds", duration),
    "sampling": ("sample_seconds", duration),
}
_SHOWN_ANYWAY = (*CHOICES, "sampler.nfe")


def _lines(console: Console, *lines: str) -> None:
    # Never wrapped: commands and paths are there to be copied.
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def line(result: Result) -> str:
    """One finished run in one line, as a sweep shows it while it goes on."""
    choices = " ".join(f"{choice}={result[choice]}" for choice in CHOICES if result.get(choice) is not None)
    return f"done {choices}  {result.get('metric')} {_score(result)}"


def show_where(
    results: Sequence[Result], table: Path, console: Console | None = None, runs: str | Path = "runs"
) -> None:
    """Print where a sweep's table and its best pictures lie, and what to run next."""
    console = console or _console()
    best = min(results, key=_rank)
    cell = _cell(best, runs)
    _lines(console, f"table          {table}")
    _lines(console, f"best pictures  {cell.folder / str(best.get('grid') or cell.samples_file.name)}", "", "next:")
    for command, why in next_commands(best)[1:2]:
        _lines(console, f"  {command}", f"    # the best, with {why}")


def show_resume(command: str, console: Console | None = None) -> None:
    """Print the command that does what a sweep lacks."""
    _lines(console or _console(), f"  {command}", "    # what is missing or failed, and only that")
