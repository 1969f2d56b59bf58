"""The data of a report page: all that the page's script is given, as plain values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from diffsweep.project import train_command
from diffsweep.report import export, statistics
from diffsweep.report.comparison import Comparison, answer, cell_name, common_options, tables
from diffsweep.report.factors import effects, factors, shown_factors
from diffsweep.report.failure import by_reason
from diffsweep.report.flat_config import flat_config
from diffsweep.report.guidance_strength import strength_notes, strength_text
from diffsweep.report.leaderboard import absent_numbers, version_warning
from diffsweep.report.protocol import TITLES, differing_fields
from diffsweep.report.requests import requested_texts
from diffsweep.report.saturation import is_saturated, saturation_notes, share_text
from diffsweep.report.statistics import Difference
from diffsweep.report.thumbnails import sound, strip
from diffsweep.report.verdict import verdict
from diffsweep.sweep.plan.jobs import LaunchRecord
from diffsweep.sweep.store.override_words import split
from diffsweep.sweep.store.record import Cell, Fit, TrainingRecord, read_metrics
from diffsweep.sweep.store.result import Result, larger_is_better
from diffsweep.sweep.store.signature import INFERENCE

# Points of a training curve: more cannot be told apart on a screen; of many curves fewer, and so many together.
_POINTS, _FEWEST, _ALL_POINTS = 200, 30, 20_000

# Up to so many cells, each has so many images in the page, at full quality or not: that keeps it to a few megabytes.
_IMAGES = ((60, 16, True), (150, 12, True), (300, 8, False), (1000, 6, False), (10**9, 0, False))

# So many cells can be heard, the best, and their sounds take so many bytes of the page together.
_HEARD, _SOUND = 60, 6_000_000


def page_data(comparison: Comparison, metric: str | None = None) -> dict[str, Any]:
    """What a page shows.

    Args:
        comparison: what it is about.
        metric: number to rank by; None for the main one of each cell.

    Raises:
        ValueError: for a number that no result has.
    """
    results, runs = comparison.ranked_by(metric), comparison.runs
    groups = tables(results)
    differing = differing_fields(list(groups))
    images, lossless = next(row[1:] for row in _IMAGES if len(results) <= row[0])
    shown_tables = [
        _table(
            rows,
            ", ".join(f"{TITLES[field]} {_text(getattr(protocol, field))}" for field in differing),
            comparison.config,
        )
        for protocol, rows in groups.items()
    ]
    best = next((rows[0].cell for rows in groups.values()), None)
    configs = {result.cell: flat_config(comparison.config(result)) for result in results}
    known = configs.get(str(best), {})
    shown = [result.without_jackknife() for result in results]
    first = next((dict(result.values) for result in shown if result.cell == best), {})
    logs = _logs(results, runs)
    return {
        "tables": shown_tables,
        "apart": [TITLES[field] for field in differing],
        "cells": {
            result.cell: _cell(result, runs, configs[result.cell], known, first) | {"logs": logs[result.cell]}
            for result in shown
        },
        "result": first,
        "columns": export.columns(shown),
        "best": best,
        "config": known,
        "strips": {
            result.cell: found
            for result in results
            if images and (found := _strip(Cell.of(result, runs), images, lossless))
        },
        "sounds": {
            result.cell: found
            for result in results[:_HEARD]
            if (found := sound(Cell.of(result, runs).samples_file.with_suffix(".wav"), _SOUND // len(results[:_HEARD])))
        },
        "motions": dict(comparison.motions or {}),
        "fits": _fits(results, runs),
        "failures": _failures(comparison),
        "search": comparison.search,
    }


def _strip(cell: Cell, count: int, lossless: bool) -> dict[str, Any] | None:
    """The first samples of a cell; those that were asked for one text lie beside each other, and are said so."""
    texts = requested_texts(cell)[:count]
    order = sorted(range(len(texts)), key=lambda i: texts.index(texts[i]))
    found = strip(cell.samples_file, count, lossless, order or None)
    if found is not None and found["images"] and texts:
        shown = order[: found["images"]]
        found |= {"numbers": shown, "texts": [texts[i] for i in shown]}
    return found


def _table(rows: Sequence[Result], apart: str, config: Callable[[Result], Mapping[str, Any]]) -> dict[str, Any]:
    """One leaderboard: cells of one protocol, best first; `apart` says what sets it apart; `config`: of a cell."""
    name = rows[0].metric
    varying, raw = shown_factors(rows), factors(rows)
    shown = {key: dict(zip(raw[key], varying[key], strict=True)) for key in raw}
    best, differences = statistics.differences_to_best(rows, name)
    ties = {result.cell for result in statistics.ties_with_best(rows, name)} if best is not None else set[str]()
    numbers = list(dict.fromkeys(one for result in rows for one in result.measured))
    names = [cell_name(varying, i, result) for i, result in enumerate(rows)]
    return {
        "metric": name,
        "larger": larger_is_better(name),
        "numbers": numbers,
        "larger_numbers": [one for one in numbers if larger_is_better(one)],
        "factors": list(varying),
        "protocol": "; ".join([_protocol(rows[0]), *_origins(rows)]),
        "apart": apart,
        "answer": answer(rows, config),
        "common": common_options(rows, varying),
        "careful": "; ".join(filter(None, _cautions(rows))) or None,
        "rows": [
            {
                "cell": result.cell,
                "place": i + 1,
                "mark": "best" if result is best else "tied" if result.cell in ties else "",
                "name": names[i],
                **{f"factor {key}": options[i] for key, options in varying.items()},
                **_numbers(result, found, numbers),
            }
            for i, (result, found) in enumerate(zip(rows, differences, strict=True))
        ],
        "effects": {
            factor: [
                {
                    "option": shown[factor][effect.option],
                    "beside": shown[factor][effect.beside],
                    "mean": effect.mean and effect.mean.value,
                    "half": effect.mean and effect.mean.half,
                    "pairs": list(effect.pairs),
                    "wins": effect.wins,
                }
                for effect in effects(rows, name, factor)
            ]
            for factor in varying
        },
    }


def _cautions(rows: Sequence[Result]) -> list[str | None]:
    """What a reader of a leaderboard should know before trusting it."""
    return [*saturation_notes(rows), *strength_notes(rows), version_warning(rows), *absent_numbers(rows)]


def _numbers(result: Result, behind: Difference | None, names: Sequence[str]) -> dict[str, Any]:
    """The numbers in a row of a leaderboard; `behind` is the difference to the best."""
    main, measures = result.main, {name: result.measure(name) for name in names}
    return {
        "value": main.value,
        "half": main.half,
        "gap": behind and behind.value,
        "gap_half": behind and behind.half,
        "paired": behind and behind.paired,
        "reason": main.reason,
        "nfe": result.nfe,
        "sampling": result.sample_seconds,
        "training": result.fit_seconds,
        "parameters": result.parameters,
        "operations": result.nfe and result.call_flops and result.nfe * result.call_flops,
        "floor": main.floor,
        "reconstruction": main.reconstruction,
        "saturated": share_text(result.saturated) if is_saturated(result) else "",
        "strength": strength_text(result),
        "numbers": {
            name: [measure.value, measure.half, measure.floor, verdict(measure)] for name, measure in measures.items()
        },
    }


def _protocol(result: Result) -> str:
    """How it was measured, for whoever quotes a number."""
    parts = [
        f"{result.metric} of {_text(result.samples)} samples",
        f"against {_text(result.reference_samples)} {_text(result.reference_split)} examples of "
        f"{_text(result.option('dataset'))} (data {_text(result.reference_digest)})",
        f"features of {_text(result.extractor)} (weights {_text(result.extractor_digest)})",
        f"resize: {_text(result.resize)}",
    ]
    if result.bits is not None:
        parts.append(f"{result.bits} bits a channel")
    parts.append("intervals: 95 %, jackknife over blocks of samples")
    return "; ".join(parts)


def _origins(rows: Sequence[Result]) -> list[str]:
    """Where the models of a table were found that were not trained here."""
    sources = dict.fromkeys(row.imported_from for row in rows if row.imported_from is not None)
    return [f"models imported from {', '.join(sources)}: nothing was trained for them"] if sources else []


def _cell(
    result: Result, runs: Path, config: Mapping[str, str], best_config: Mapping[str, str], best: Mapping[str, Any]
) -> dict[str, Any]:
    """What the page shows of one cell: of its config and its result, what differs from the best cell's.

    Most of a config is that of the winner: 500 whole ones would be most of the page.
    """
    values = result.values
    command = train_command(*split(result.overrides))
    return {
        "fit": result.fit,
        "command": "" if result.images is not None else command,
        "folder": str(Cell.of(result, runs).folder),
        "differs": {key: config.get(key) for key in {*config, *best_config} if config.get(key) != best_config.get(key)},
        "result": {key: values.get(key) for key in {*values, *best} if values.get(key) != best.get(key)},
    }


def _failures(comparison: Comparison) -> list[dict[str, Any]]:
    """Cells without a result by the reason for it, each reason with one traceback."""
    found = []
    for reason, failures in by_reason(comparison.failures, comparison.runs).items():
        trace = ""
        for failure in failures:
            with suppress(OSError):
                trace = trace or failure.error_file(comparison.runs).read_text(errors="replace")[-4000:]
        cells = [{"name": failure.title, "log": failure.log} for failure in failures]
        found.append({"reason": reason, "cells": cells, "trace": trace})
    return found


def _logs(results: Sequence[Result], runs: Path) -> dict[str, list[str]]:
    """Cell -> the logs of the jobs that trained and evaluated it, as far as its sweep's last launch records them."""
    known: dict[tuple[str, str], list[str]] = {}
    for sweep in {result.sweep for result in results if result.sweep}:
        folder = runs / "sweeps" / sweep
        with suppress(OSError, ValueError, KeyError, TypeError):
            launched = LaunchRecord.read(folder)
            for job in launched.jobs if launched else ():
                for cell in job.cells if job.log else ():
                    known.setdefault((sweep, cell), []).append(str(folder / job.log))
    return {result.cell: known.get((result.sweep or "", result.cell), []) for result in results}


def _fits(results: Sequence[Result], runs: Path) -> list[dict[str, Any]]:
    """The training curves."""
    members: dict[str, list[int]] = {}
    for i, result in enumerate(results):
        members.setdefault(result.fit, []).append(i)
    # A sampler is no part of a training's name, even if all of its cells that are finished have the same.
    varying = {
        key: options for key, options in shown_factors(results).items() if re.split("[./]", key)[0] not in INFERENCE
    }
    found = []
    for fit, places in members.items():
        same = {key: options[places[0]] for key, options in varying.items()}
        name = " ".join(f"{key}={value}" for key, value in same.items() if value != "-") or fit
        drawn = curve(Fit(runs / "fits" / fit), name, max(_FEWEST, min(_POINTS, _ALL_POINTS // len(members))))
        if drawn is not None:
            found.append(drawn)
    return found


def curve(fit: TrainingRecord, name: str, points: int = _POINTS) -> dict[str, Any] | None:
    """The training curve of a fit that is called `name`, in about so many points; None if nothing is recorded."""
    try:
        lines = read_metrics(fit.metrics_file)
    except (ValueError, OSError):
        return None
    if not lines:
        return None
    lines = [line for line in lines if line.get("loss") is not None] or lines
    every = max(1, len(lines) // points)
    kept = [*lines[::every], lines[-1]]
    return {
        "fit": fit.signature,
        "name": name,
        "steps": [line["step"] for line in kept],
        "loss": [line.get("loss") for line in kept],
    }


def _text(value: object) -> str:
    return "not recorded" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
