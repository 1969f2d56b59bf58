"""Results as other programs read them: CSV, JSON and Parquet, one row a cell, every column that any of them has.

A CSV, which is opened in a spreadsheet, holds no formulas. It leaves out the values by block, 20 numbers as one
text, which are for the intervals of differences between cells (see `report.statistics`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffsweep.files import atomic, write_atomic
from diffsweep.messages import printable
from diffsweep.sweep.store.result import Result, is_jackknife

FORMATS = ("table", "csv", "json", "parquet")


def text(results: Sequence[Result], kind: str) -> str:
    """`results` as "csv" or "json" (an array with one object a line); an absent value is empty, or no key at all."""
    if kind == "json":
        return "[\n" + ",\n".join(json.dumps(result.values) for result in results) + "\n]\n" if results else "[]\n"
    assert kind == "csv", kind
    import csv
    import io

    written = io.StringIO()
    shown = [name for name in columns(results) if not is_jackknife(name)]
    writer = csv.DictWriter(written, shown, extrasaction="ignore", lineterminator="\n")
    writer.writerow({name: _cell(name) for name in shown})
    writer.writerows({name: _cell(value) for name, value in result.values.items()} for result in results)
    return written.getvalue()


# What a spreadsheet would compute, and a number that begins in the same way.
_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def _cell(value: object) -> object:
    """A cell of a CSV: text that a spreadsheet would take for a formula gets a quotation mark, which it hides."""
    if not isinstance(value, str):
        return value
    value = printable(value)
    return f"'{value}" if _FORMULA.match(value) and not _NUMBER.fullmatch(value) else value


def write(results: Sequence[Result], kind: str, file: str | Path) -> None:
    """Write `results` to `file` as "csv", "json" or "parquet". Raises CannotWriteError, ValueError without pyarrow."""
    if kind == "parquet":
        _write_parquet(results, Path(file))
    else:
        write_atomic(file, text(results, kind))


def columns(results: Sequence[Result]) -> list[str]:
    """Every key of any result, in the order in which they come up."""
    return list(dict.fromkeys(key for result in results for key in result.values))


def sort_by(results: Sequence[Result], column: str, reverse: bool = False) -> list[Result]:
    """`results` by a column: numbers first, then texts, then those that lack it, which `reverse` does not move.

    Raises ValueError for a column that no result has.
    """
    if results and column not in (known := columns(results)):
        raise ValueError(f"--sort {column}: no result has that column; choose one of {', '.join(sorted(known))}")
    there = [result for result in results if result.values.get(column) is not None]
    absent = [result for result in results if result.values.get(column) is None]

    def key(result: Result) -> tuple[bool, Any]:
        value = result.values[column]
        return isinstance(value, str), value

    return sorted(there, key=key, reverse=reverse) + absent


def _write_parquet(results: Sequence[Result], file: Path) -> None:
    # Imported here: it is a large package, which no other format needs.
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f"Parquet needs pyarrow ({error}): pip install 'diffsweep[parquet]'") from error

    arrays = {}
    for name in columns(results):
        values = [result.values.get(name) for result in results]
        kinds = {type(value) for value in values if value is not None}
        # Parquet's columns have one type; where ours have several, only text holds them all.
        if len(kinds) > 1 and not kinds <= {int, float}:
            values = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
        arrays[name] = pyarrow.array(values)
    with atomic(file) as temporary:
        parquet.write_table(pyarrow.table(arrays), temporary)
