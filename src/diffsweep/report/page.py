"""One HTML file that answers which choice won, by how much, and what it looks like: it needs no network and no server.

The data go into the page as JSON, the scripts (plotly.js draws, Tabulator tabulates) beside them; what the page shows
is made of both in the browser. Jinja escapes all text, the page's own script writes text nodes only.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from diffsweep.files import write_atomic
from diffsweep.report import export, statistics
from diffsweep.report.bibliography import bibtex
from diffsweep.report.factors import effects, factors
from diffsweep.report.format import count, duration, things, with_error
from diffsweep.report.leaderboard import mixed
from diffsweep.report.overrides import overridden
from diffsweep.report.thumbnails import strip
from diffsweep.sweep.plan.jobs import LaunchRecord
from diffsweep.sweep.store.override_words import split
from diffsweep.sweep.store.record import CHOICES, Cell, Fit, read_metrics
from diffsweep.sweep.store.signature import INFERENCE

ASSETS = Path(__file__).parent / "assets"

# Points of a training curve: more cannot be told apart on a screen.
_POINTS = 200

# Characters of an option in a name: lists and paths have no end.
_WORD = 40

# Up to so many cells, each has so many images in the page, at full quality or not: that keeps it to a few megabytes.
_IMAGES = ((60, 16, True), (150, 12, True), (300, 8, False), (1000, 6, False), (10**9, 0, False))

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    Attributes:
        title: its heading, as the name of a sweep.
        runs: folder of the runs.
        results: contents of result.json files.
        failures: as for `terminal.show_sweep`.
        command: what was typed to launch it, or "".
        configs: cell -> its resolved config, of those that are known without reading files.
        motions: cell -> how its first samples come about (see `motion`).
        options: what defaults brought, as `sampler/spacing=karras`, as far as it is known; for the bibliography.
    """

    title: str
    runs: Path
    results: Sequence[Result]
    failures: Sequence[Result] = ()
    command: str = ""
    configs: Mapping[str, Mapping[str, Any]] | None = None
    motions: Mapping[str, Mapping[str, Any]] | None = None
    options: frozenset[str] = frozenset()


def write(subject: Subject, file: Path, metric: str | None = None) -> None:
    """Write the report to `file`, whole or not at all.

    Args:
        subject: what it is about.
        file: of the page.
        metric: number to rank by; None for each cell's main one.

    Raises:
        ValueError: for a number that no result has, CannotWriteError.
    """
    write_atomic(file, render(subject, metric))


def render(subject: Subject, metric: str | None = None) -> str:
    """The page; arguments and errors as `write`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    data = content(subject, metric)
    environment = Environment(loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined)

    def asset(name: str) -> Markup:
        # An end tag inside of a script would end it.
        return Markup((ASSETS / name).read_text(encoding="utf-8").replace("</script", "<\\/script"))

    return environment.get_template("page.html").render(
        subject=subject,
        data=data,
        json=Markup(_json(data)),
        asset=asset,
        made=time.strftime("%Y-%m-%d %H:%M"),
        downloads=list(_downloads(subject)),
        bibtex=bibtex(subject.results, subject.options),
    )


def content(subject: Subject, metric: str | None = None) -> dict[str, Any]:
    """All that the page's script is told, as plain data."""
    results = subject.results if metric is None else statistics.by(subject.results, metric)
    groups = _groups(results)
    differing = [statistics.PROTOCOL[place] for place in statistics.apart(list(groups))]
    images, lossless = next(row[1:] for row in _IMAGES if len(results) <= row[0])
    tables = [_table(rows, differing) for rows in groups.values()]
    best = tables[0]["rows"][0]["cell"] if tables else None
    configs = {str(result["cell"]): _flat(_config(result, subject)) for result in results}
    known = configs.get(str(best), {})
    shown = [{key: value for key, value in result.items() if not key.endswith("_jackknife")} for result in results]
    first = next((result for result in shown if str(result["cell"]) == best), {})
    logs = _logs(results, subject.runs)
    return {
        "tables": tables,
        "apart": [words for _, words in differing],
        "cells": {
            str(result["cell"]): _cell(result, subject, configs, known, first) | {"logs": logs[str(result["cell"])]}
            for result in shown
        },
        "result": first,
        "columns": export.columns(shown),
        "best": best,
        "config": known,
        "strips": {
            str(result["cell"]): found
            for result in results
            if images and (found := strip(Cell.of(result, subject.runs).samples_file, images, lossless))
        },
        "motions": dict(subject.motions or {}),
        "fits": _fits(results, subject.runs),
        "failures": _failures(subject),
    }


def best_first(subject: Subject, metric: str | None = None) -> list[Result]:
    """All results as the page lists them: one table after the other, each best first; errors as `write`."""
    results = subject.results if metric is None else statistics.by(subject.results, metric)
    return [result for rows in _groups(results).values() for result in _ranked(rows)]


def _groups(results: Sequence[Result]) -> dict[tuple[Any, ...], list[Result]]:
    """Results by how they were measured; what most have in common first."""
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(statistics.protocol(result), []).append(result)
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))


def _ranked(rows: Sequence[Result]) -> list[Result]:
    return sorted(rows, key=lambda result: statistics.rank(result, str(rows[0].get("metric"))))


def _table(rows: Sequence[Result], differing: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """One leaderboard: cells that were measured alike."""
    name = str(rows[0].get("metric"))
    rows = _ranked(rows)
    table = factors(rows)
    best, lacks = statistics.against_best(rows, name)
    tied = {str(result["cell"]) for result in statistics.tied(rows, name)} if best is not None else set()
    numbers = list(dict.fromkeys(one for result in rows for one in statistics.numbers(result)))
    names = [_name(table, i, result) for i, result in enumerate(rows)]
    return {
        "metric": name,
        "larger": statistics.larger_is_better(name),
        "numbers": numbers,
        "larger_numbers": [one for one in numbers if statistics.larger_is_better(one)],
        "factors": list(table),
        "protocol": _protocol(rows[0]),
        "apart": ", ".join(
            f"{words} {_text(rows[0].get(field.replace('METRIC', name)))}" for field, words in differing
        ),
        "answer": _answer(rows, name, tied, names),
        "common": _common(rows, table),
        "careful": mixed(rows),
        "rows": [
            {
                "cell": str(result["cell"]),
                "place": i + 1,
                "mark": _mark(result, best, tied),
                "name": names[i],
                **{f"factor {key}": options[i] for key, options in table.items()},
                "value": statistics.finite(result, name),
                "half": statistics.half(result, name),
                "gap": lack and lack.value,
                "gap_half": lack and lack.half,
                "paired": lack and lack.paired,
                "reason": result.get(f"{name}_reason"),
                "nfe": result.get("nfe"),
                "sampling": result.get("sample_seconds"),
                "training": result.get("fit_seconds"),
                "floor": statistics.finite(result, f"{name}_floor"),
                "numbers": {one: [statistics.finite(result, one), statistics.half(result, one)] for one in numbers},
            }
            for i, (result, lack) in enumerate(zip(rows, lacks, strict=True))
        ],
        "effects": {
            factor: [
                {
                    "option": effect.option,
                    "beside": effect.beside,
                    "mean": effect.mean and effect.mean.value,
                    "half": effect.mean and effect.mean.half,
                    "pairs": list(effect.pairs),
                    "wins": effect.wins,
                }
                for effect in effects(rows, name, factor)
            ]
            for factor in table
        },
    }


def _mark(result: Result, best: Result | None, tied: set[str]) -> str:
    if best is None or str(result["cell"]) not in tied:
        return ""
    return "best" if result is best else "tied"


def _name(table: Mapping[str, Sequence[str]], i: int, result: Result) -> str:
    """What distinguishes one cell from the others; its choices, if it is alone."""
    said = {key: options[i] for key, options in table.items() if options[i] != "-"}
    said = said or {key: str(result[key]) for key in ("images", *CHOICES) if result.get(key) is not None}
    return " ".join(f"{key}={_short(value)}" for key, value in said.items()) or str(result["cell"])


def _short(value: str) -> str:
    return value if len(value) <= _WORD else f"{value[: _WORD // 2]}\N{HORIZONTAL ELLIPSIS}{value[-_WORD // 3 :]}"


def _common(rows: Sequence[Result], table: Mapping[str, Sequence[str]]) -> str:
    """The choices and overrides that all cells share."""
    first = rows[0]
    same = {key: str(first[key]) for key in CHOICES if key not in table and first.get(key) is not None}
    same |= {key: value for key, value in overridden(first).items() if key not in table}
    return " ".join(f"{key}={_short(value)}" for key, value in same.items())


def _answer(rows: Sequence[Result], name: str, tied: set[str], names: Sequence[str]) -> list[str]:
    """The winner, its margin, how sure that is and at what cost; then who else may be best, and what all of it took."""
    if not tied:
        return [f"No cell has a finite {name}.", _took(rows)]
    best = rows[0]
    ranked = sum(statistics.finite(result, name) is not None for result in rows)
    others = [i for i, result in enumerate(rows) if i and str(result["cell"]) in tied]
    sure = f"with {statistics.LEVEL:.0%} confidence".replace("%", " %")
    sentences = []
    if ranked == 1:
        sentences.append(f"{names[0]}: {_scored(best, name)}.")
    elif others:
        amount = things(len(others), "other")
        sentences.append(f"{names[0]} comes first: {_scored(best, name)}, but {amount} cannot be told from it {sure}.")
        more = f"; and {len(others) - 3} more" if len(others) > 3 else ""
        sentences.append(f"These may be as good: {'; '.join(names[i] for i in others[:3])}{more}.")
        calls = [rows[i].get("nfe") for i in (0, *others)]
        cheapest = min((nfe for nfe in calls if nfe is not None), default=None)
        if cheapest is not None and calls[0] is not None and cheapest < calls[0]:
            i = (0, *others)[calls.index(cheapest)]
            sentences.append(f"The cheapest of them is {names[i]}: {_scored(rows[i], name)}.")
    else:
        lead = statistics.difference(rows[1], best, name, statistics.level_for(ranked - 1))
        assert lead is not None
        margin = with_error(abs(lead.value), lead.half, "\N{PLUS-MINUS SIGN}")
        how = "more" if statistics.larger_is_better(name) else "less"
        sentences.append(
            f"{names[0]} is best {sure}: {_scored(best, name)}, {margin} {how} than the next, {names[1]}"
            f"{_calls(rows[1]) if rows[1].get('nfe') != best.get('nfe') else ''}."
        )
    return [*sentences, _took(rows)]


def _scored(result: Result, name: str) -> str:
    value = with_error(result.get(name), statistics.half(result, name), "\N{PLUS-MINUS SIGN}")
    return f"{name} {value}{_calls(result)}"


def _calls(result: Result) -> str:
    return f" at {count(result['nfe'])} network calls a sample" if result.get("nfe") is not None else ""


def _took(rows: Sequence[Result]) -> str:
    ours = {result.get("fit"): result for result in rows if result.get("images") is None}
    training = sum(_seconds(result, "fit_seconds") for result in ours.values())
    sampling = sum(_seconds(result, "sample_seconds") + _seconds(result, "evaluate_seconds") for result in rows)
    cells = things(len(rows), "cell") + (f" of {things(len(ours), 'training')}" if ours else "")
    return f"{cells} took {duration(training)} of training, and {duration(sampling)} of sampling and evaluation."


def _seconds(result: Result, key: str) -> float:
    return statistics.finite(result, key) or 0.0


def _protocol(result: Result) -> str:
    """How it was measured, for whoever quotes a number."""
    said = [
        f"{result.get('metric')} of {_text(result.get('samples'))} samples",
        f"against {_text(result.get('reference_samples'))} {_text(result.get('reference_split'))} examples of "
        f"{_text(result.get('dataset'))} (data {_text(result.get('reference_digest'))})",
        f"features of {_text(result.get('extractor'))} (weights {_text(result.get('extractor_digest'))})",
        f"resize: {_text(result.get('resize'))}",
    ]
    if result.get("bits") is not None:
        said.append(f"{result['bits']} bits a channel")
    said.append("intervals: 95 %, jackknife over blocks of samples")
    return "; ".join(said)


def _cell(
    result: Result, subject: Subject, configs: Mapping[str, dict[str, str]], best: Mapping[str, str], first: Result
) -> dict[str, Any]:
    cell = str(result["cell"])
    config = configs[cell]
    record = Cell.of(result, subject.runs)
    return {
        "fit": str(result.get("fit")),
        "command": "" if result.get("images") is not None else _command(result),
        "folder": str(record.folder),
        # Most of a config is that of the winner: 500 of them would be most of the page.
        "differs": {key: config.get(key) for key in {*config, *best} if config.get(key) != best.get(key)},
        "result": {key: result.get(key) for key in {*result, *first} if result.get(key) != first.get(key)},
    }


def _command(result: Result) -> str:
    return shlex.join(["python", "train.py", *split(str(result.get("overrides") or ""))])


def _failures(subject: Subject) -> list[dict[str, Any]]:
    """Cells without a result by the reason for it: hundreds may have the same, and the same trace."""
    found: dict[str, dict[str, Any]] = {}
    for failure in subject.failures:
        record = Cell.of(failure, subject.runs)
        reason = str(failure.get("reason") or record.error() or "no reason was recorded")
        one = found.setdefault(reason, {"reason": reason, "cells": [], "trace": ""})
        name = str(failure.get("name") or failure.get("overrides") or failure.get("cell"))
        one["cells"].append({"name": name, "log": str(failure.get("log") or "")})
        if not one["trace"]:
            with suppress(OSError):
                one["trace"] = Path(failure.get("error") or record.error_file).read_text(errors="replace")[-4000:]
    return list(found.values())


def _logs(results: Sequence[Result], runs: Path) -> dict[str, list[str]]:
    """Cell -> the logs of the jobs that trained and evaluated it, as far as its sweep's last launch tells of them."""
    told: dict[tuple[str, str], list[str]] = {}
    for sweep in {str(result["sweep"]) for result in results if result.get("sweep")}:
        folder = runs / "sweeps" / sweep
        with suppress(OSError, ValueError, KeyError, TypeError):
            launched = LaunchRecord.read(folder)
            for job in launched.jobs if launched else ():
                for cell in job.cells if job.log else ():
                    told.setdefault((sweep, cell), []).append(str(folder / job.log))
    return {str(result["cell"]): told.get((str(result.get("sweep")), str(result["cell"])), []) for result in results}


def _fits(results: Sequence[Result], runs: Path) -> list[dict[str, Any]]:
    """The course of every training."""
    members: dict[str, list[int]] = {}
    for i, result in enumerate(results):
        members.setdefault(str(result.get("fit")), []).append(i)
    # A sampler is no part of a training's name, even if all of its cells that are finished have the same.
    table = {key: options for key, options in factors(results).items() if re.split("[./]", key)[0] not in INFERENCE}
    found = []
    for fit, places in members.items():
        same = {key: options[places[0]] for key, options in table.items()}
        try:
            lines = read_metrics(Fit(runs / "fits" / fit).metrics_file)
        except (ValueError, OSError):
            lines = []
        if not lines:
            continue
        lines = [line for line in lines if line.get("loss") is not None] or lines
        every = max(1, len(lines) // _POINTS)
        kept = [*lines[::every], lines[-1]]
        found.append(
            {
                "fit": fit,
                "name": " ".join(f"{key}={value}" for key, value in same.items() if value != "-") or fit,
                "steps": [line["step"] for line in kept],
                "loss": [line.get("loss") for line in kept],
            }
        )
    return found


def _config(result: Result, subject: Subject) -> Mapping[str, Any]:
    known = (subject.configs or {}).get(str(result["cell"]))
    return Cell.of(result, subject.runs).config() if known is None else known


def _flat(config: Any, key: str = "") -> dict[str, str]:
    """A config as dotted keys with their values as text."""
    if isinstance(config, Mapping):
        below = [_flat(value, f"{key}.{name}" if key else str(name)) for name, value in config.items()]
        return {name: value for one in below for name, value in one.items()}
    return {key: json.dumps(config) if isinstance(config, (list, bool, type(None))) else str(config)}


def _downloads(subject: Subject) -> Iterable[tuple[str, str]]:
    """(name, data URI) of the table in formats for other programs."""
    with TemporaryDirectory() as folder:
        table = Path(folder) / "table.parquet"
        try:
            export.write(subject.results, "parquet", table)
        except ValueError:
            # The library for it is not installed here.
            return
        yield table.name, _data_uri("application/vnd.apache.parquet", table.read_bytes())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _json(data: object) -> str:
    """JSON that may stand inside of a script element: no value can end it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").replace("\u2028", "\\u2028")


def _text(value: object) -> str:
    return "not recorded" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
