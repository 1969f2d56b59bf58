"""Results as a researcher reads them in a terminal: what was compared, what is best, where it lies, what to run next.

In a terminal there are colours and rules; in a pipe only plain text, where columns are two spaces or more apart and
none is empty. Cells are ranked only against cells that were measured alike, and those that chance alone may have put
behind the best are marked (see `compare`).
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

from diffsweep.report import compare, thumbnail
from diffsweep.report.compare import Difference, half
from diffsweep.sweep.record import Cell, Fit

CHOICES = ("diffuser", "sampler", "schedule", "backbone", "dataset")

# What a narrow terminal goes without, first to last.
_DISPENSABLE = ("steps", "sampling", "training", "floor", "behind best")

_UNBOUNDED = 10_000

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
    console = console or _console()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for choice in ("images", *CHOICES):
        if result.get(choice) is not None:
            table.add_row(choice, Text(str(result[choice])))
    if result.get("images") is None:
        table.add_row("network calls", _calls(result))
    sign, metric = _sign(console), str(result.get("metric") or "metric")
    table.add_row(Text(metric), Text(_score(result, metric, sign) + _floor(result, metric, with_samples=True)))
    others = [name for name in compare.numbers(result) if name != metric]
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
        table.add_row("training", f"{count(result.get('fit_steps'))} steps in {duration(result.get('fit_seconds'))}")
    if result.get("reference_samples") is not None:
        split = f", split {result['reference_split']}" if result.get("reference_split") else ""
        table.add_row("reference", f"{count(result['reference_samples'])} real samples{split}")
    if result.get("parameters") is not None:
        table.add_row("parameters", count(result["parameters"]))
    console.print(table)
    cell = _cell(result, runs)
    _lines(console, "")
    pictures = cell.folder / str(result.get("grid") or cell.samples_file.name)
    thumbnail.show(pictures, console)
    _lines(console, f"pictures  {pictures}")
    _lines(console, f"numbers   {cell.result_file}")
    _lines(console, "", "next:")
    for command, why in next_commands(result, runs):
        _lines(console, f"  {command}", f"    # {why}")


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
    (`compare.PROTOCOL`) come in tables of their own.

    A failure needs `fit` and `cell` and may have `overrides`, `name` (what distinguishes it), `state` (as in
    `sweep.state`), `reason` (one line), `error` and `log` (paths); what is absent is read from the folder `runs`.

    Raises ValueError for a `metric` that no result has.
    """
    console = console or _console()
    chosen = compare.by(results, metric) if metric is not None and results else results
    if len(chosen) < len(results):
        _lines(console, f"left out: {_things(len(results) - len(chosen), 'run')} without {metric}")
    groups = _groups(chosen)
    differing = compare.apart(list(groups))
    if differing:
        named = [_differing(place, groups) for place in differing]
        _lines(console, f"{len(groups)} tables, for numbers of different {_listed(named)} cannot be ranked", "")
    for how, group in groups.items():
        named = [(compare.PROTOCOL[place][1], how[place]) for place in differing]
        told = "".join(f"; {called} {_protocol_text(value)}" for called, value in named if called != "metric")
        _show_group(sorted(group, key=_rank) if ranked else group, console, ranked, limit, runs, told)
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


def _groups(results: Sequence[Result]) -> dict[tuple[Any, ...], list[Result]]:
    """Results by how they were measured."""
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(compare.protocol(result), []).append(result)
    return groups


def _differing(place: int, groups: Mapping[tuple[Any, ...], object]) -> str:
    values = sorted({how[place] for how in groups}, key=lambda value: (isinstance(value, str), value is None, value))
    return f"{compare.PROTOCOL[place][1]} ({_some([_protocol_text(value) for value in values])})"


def _protocol_text(value: object) -> str:
    return "none" if value is None else count(value)


def _counted(failures: Sequence[Result]) -> list[str]:
    counts = Counter(_NO_RESULT.get(str(failure.get("state")), "failed") for failure in failures)
    return [f"{amount} {what}" for what, amount in counts.items()]


def next_commands(result: Result, runs: str | Path = "runs") -> list[tuple[str, str]]:
    """A few sensible commands to type after the run `result`, each with what it is good for."""
    if result.get("images") is not None:
        asked = [f"dataset={result.get('dataset')}", *(["--runs", str(runs)] if str(runs) != "runs" else [])]
        return [(f"diffsweep results {shlex.join(asked)}", "beside everything compared with the same data")]
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


def with_error(value: object, half: float | None, sign: str = "+-") -> str:
    """A value and half the width of its interval to two significant digits, as `0.380 +- 0.012`.

    The value alone, as `number` has it, where there is no interval or one without width.
    """
    if not isinstance(value, (int, float)) or not math.isfinite(value) or half is None or not math.isfinite(half):
        return number(value)
    # Rounding alone is no error: what is the same without any block has none.
    if half <= 1e-7 * abs(value):
        return number(value)
    error = float(f"{half:.1e}")
    places, largest = 1 - math.floor(math.log10(error)), max(abs(value), error)
    if not 1e-4 <= largest < 1e6:
        digits = max(0, math.floor(math.log10(largest)) + places)
        return f"{value:.{digits}e} {sign} {error:.1e}"
    # Adding 0 makes -0.0 what it looks like to people.
    return f"{round(value, places) + 0.0:.{max(0, places)}f} {sign} {error:.{max(0, places)}f}"


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


def _sign(console: Console) -> str:
    return "+-" if not console.is_terminal or console.options.ascii_only else "\N{PLUS-MINUS SIGN}"


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
        said.append(f"commits {_some(sorted(commits))}")
    for key in sorted({key for result in results for key in result if key.startswith("version_")}):
        versions = {str(result[key]) for result in results if result.get(key)}
        if len(versions) > 1:
            said.append(f"{key.removeprefix('version_').replace('_', '-')} {_some(sorted(versions))}")
    return f"careful: made with different {'; '.join(said)}" if said else None


def _some(words: Sequence[str], most: int = 4) -> str:
    return _listed([", ".join(words[:most]), f"{len(words) - most} more"] if len(words) > most else words)


def _show_group(
    group: Sequence[Result], console: Console, best_first: bool, limit: int | None, runs: str | Path, told: str
) -> None:
    ranked = group[:limit]
    metric, sign = str(ranked[0].get("metric")), _sign(console)
    standing, legend = _standing(group, ranked, metric, runs, sign)
    columns = _columns(ranked, metric, standing, sign)
    always = {metric, *standing} | ({"#", "images", "sampler", "NFE"} if len(ranked) == 1 else set())
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
    direction = "larger" if compare.larger_is_better(metric) else "smaller"
    ours = [result.get("fit") for result in group if result.get("images") is None]
    counted = [f"{_things(len(ours), 'run')} of {_things(len(set(ours)), 'training')}"] if ours else []
    if len(ours) < len(group):
        counted.append(_things(len(group) - len(ours), "set") + " of given images")
    console.print(Text(f"{_listed(counted)}, by {metric} ({direction} is better){told}"))
    if known := {name: text for name, text in shared.items() if text != "-"}:
        whom = "all" if len(ranked) == len(group) else "all shown"
        console.print(Text(f"{whom}: " + ", ".join(f"{name} {text}" for name, text in known.items())))
    console.print(table)
    for line in legend:
        console.print(Text(line))
    if len(ranked) < len(group):
        console.print(Text(f"the first {count(len(ranked))} of {count(len(group))}; --limit 0 shows all"))
    if (warning := mixed(ranked)) is not None:
        _lines(console, warning)
    if left_out:
        console.print(Text(f"a wider terminal also shows {', '.join(left_out)}"))
    lost = [result for result in ranked if compare.finite(result, metric) is None]
    if lost:
        reasons = dict.fromkeys(str(result.get(f"{metric}_reason") or "no reason was recorded") for result in lost)
        last = ", ranked last" if best_first else ""
        console.print(Text(f"- : no {metric}{last}: {_some(list(reasons))}"))
    _lines(console, "")


def _standing(
    group: Sequence[Result], ranked: Sequence[Result], metric: str, runs: str | Path, sign: str
) -> tuple[dict[str, list[str]], list[str]]:
    """Columns that tell how sure it is that a cell is behind the best, and lines that explain them; none if unknown."""

    def read(result: Result) -> Result:
        # Lists of very many results come without what only the intervals of differences are made of.
        key = f"{metric}_jackknife"
        if key in result or f"{metric}_low" not in result:
            return result
        return {**result, key: (_cell(result, runs).result() or {}).get(key)}

    best, differences = compare.against_best(group, metric, ranked, read)
    if not any(differences):
        return {}, []

    def mark(result: Result, found: Difference | None) -> str:
        if result is best:
            return "*"
        if found is None:
            return "?" if compare.finite(result, metric) is not None else ""
        return "" if found.told_apart else "="

    marks = [mark(result, found) for result, found in zip(ranked, differences, strict=True)]
    behind = [
        "" if found is None else "+" * (found.value >= 0) + with_error(found.value, found.half, sign)
        for found in differences
    ]
    comparisons = sum(compare.finite(result, metric) is not None for result in group) - 1
    together = f" for all {count(comparisons)} comparisons together" if comparisons > 1 else ""
    legend = []
    if "=" in marks:
        legend.append(f"= cannot be told from the best: the interval of its difference (95 %{together}) contains 0")
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
    overridden = [_overridden(result) for result in ranked]
    keys = list(dict.fromkeys(key for one in overridden for key in one))
    # What every run was told alike is in the choices, or no news.
    keys = [key for key in keys if len({one.get(key) for one in overridden}) > 1]
    for key in keys:
        last = key.rpartition(".")[2]
        taken = {*_COLUMNS, *standing}
        unique = [other.rpartition(".")[2] for other in keys].count(last) == 1 and last not in taken
        columns[last if unique and last != metric else key] = [one.get(key, "-") for one in overridden]
    for name, (key, text) in _COLUMNS.items():
        if name:
            columns[name] = [text(result.get(key.replace("METRIC", metric))) for result in ranked]
        else:
            columns[metric] = [with_error(result.get(metric), half(result, metric), sign) for result in ranked]
            columns |= standing
    return columns


def _overridden(result: Result) -> dict[str, str]:
    pairs = [word.lstrip("+").partition("=") for word in split_overrides(str(result.get("overrides") or ""))]
    return {key: value for key, _, value in pairs if key not in _SHOWN_ANYWAY and not key.startswith("hydra")}


def _rank(result: Result) -> tuple[bool, float]:
    return compare.rank(result, str(result.get("metric")))


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


def _cell(result: Result, runs: str | Path) -> Cell:
    return Fit(Path(runs) / "fits" / str(result.get("fit"))).cell(str(result.get("cell")))


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1])] * (len(words) > 1) + list(words[-1:]))


def _things(amount: int, thing: str) -> str:
    return f"{amount} {thing}" if amount == 1 else f"{amount} {thing}s"


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


def _lines(console: Console, *lines: str) -> None:
    # Never wrapped: commands and paths are there to be copied.
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def line(result: Result) -> str:
    """One finished run in one line, as a sweep shows it while it goes on."""
    choices = " ".join(f"{choice}={result[choice]}" for choice in CHOICES if result.get(choice) is not None)
    metric = str(result.get("metric"))
    return f"done {choices}  {metric} {_score(result, metric)}"


def show_where(
    results: Sequence[Result], table: Path, report: Path, console: Console | None = None, runs: str | Path = "runs"
) -> None:
    """Print where a sweep's report, table and the best pictures of each of its tables lie, and what to run next."""
    console = console or _console()
    if report.exists():
        _lines(console, f"report         {report}")
    _lines(console, f"table          {table}")
    bests = [min(group, key=_rank) for group in _groups(results).values()]
    for best in bests[:_EXAMPLES]:
        cell = _cell(best, runs)
        pictures = cell.folder / str(best.get("grid") or cell.samples_file.name)
        if len(bests) == 1:
            thumbnail.show(pictures, console)
        _lines(console, f"best pictures  {pictures}")
    _lines(console, "", "next:")
    for command, why in next_commands(bests[0])[1:2]:
        _lines(console, f"  {command}", f"    # the best, with {why}")


def show_resume(command: str, console: Console | None = None) -> None:
    """Print the command that does what a sweep lacks."""
    _lines(console or _console(), f"  {command}", "    # what is missing or failed, and only that")
