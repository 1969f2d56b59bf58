"""All finished runs of a folder, read fast: one listing of folders, one read a record, and no import that costs.

A disposable copy below `runs/cache` saves the reads of records whose file has not changed since (path, time stamp,
size and inode agree). The files are the record: a copy that is absent, damaged or cannot be written changes nothing.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

from diffsweep.sweep.store.fast_read import read_fast, without_collector
from diffsweep.sweep.store.result import Result, is_jackknife

if TYPE_CHECKING:
    from pathlib import Path

Stamp: TypeAlias = tuple[int, int, int]
Read: TypeAlias = tuple[Stamp, dict[str, Any]]

# Reading this many files anew takes less time than packing them would.
_WORTH = 2000
_BATCH = 200
_FORMAT = b"diffsweep results 2"


def results(runs: str | Path, unreadable: list[str] | None = None, *, jackknife: bool = False) -> list[Result]:
    """The results of all finished cells below the folder `runs`, by fit and cell; none if there is no folder.

    One that is corrupt, half, or does not say that it is done is left out; its path is appended to `unreadable`.
    Without `jackknife` the values by block are left out, and the copy does without them: they are most of a record, and
    of very many records few are looked at.
    """
    fits = f"{os.fspath(runs)}/fits"
    names = [f"{fit}/cells/{cell}" for fit in _folders(fits) for cell in _folders(f"{fits}/{fit}/cells")]
    with without_collector():
        known = {} if jackknife else _unpack(_cache(runs))
        found: dict[str, Read | None] = {}
        for name in names:
            hit = known.get(name)
            found[name] = hit if hit is not None and hit[0] == _stamp(f"{fits}/{name}/result.json") else None
        missed = [name for name, hit in found.items() if hit is None]
        for first in range(0, len(missed), _BATCH):
            batch = missed[first : first + _BATCH]
            found |= zip(batch, _read([f"{fits}/{name}/result.json" for name in batch], unreadable), strict=True)
        read = {name: hit for name, hit in found.items() if hit is not None}
        if jackknife:
            return [Result.parse(record) for _, record in read.values()]
        for name in missed:
            if name in read:
                stamp, record = read[name]
                read[name] = stamp, {key: value for key, value in record.items() if not is_jackknife(key)}
        if sum(name in read for name in missed) >= max(_WORTH, len(read) // 10):
            _remember(runs, read)
        return [Result.parse(record) for _, record in read.values()]


def fits(runs: str | Path, unreadable: list[str] | None = None) -> list[dict[str, Any]]:
    """Every training below the folder `runs` that has said something, by name.

    `fit` is its name, `done` what done.json says of a finished one, `status` what status.json says of another; the
    other of the two is None. Corrupt files count as absent; their paths are appended to `unreadable`.
    """
    folder = f"{os.fspath(runs)}/fits"
    names = _folders(folder)
    with without_collector():
        done = _read([f"{folder}/{name}/done.json" for name in names], unreadable)
        going = [name for name, finished in zip(names, done, strict=True) if finished is None]
        said = _read([f"{folder}/{name}/status.json" for name in going], unreadable, finished=False)
        status = dict(zip(going, said, strict=True))
        found = []
        for name, finished in zip(names, done, strict=True):
            last = status.get(name)
            if finished or last:
                found.append({"fit": name, "done": finished and finished[1], "status": last and last[1]})
    return found


def select(results: Sequence[Result], filters: Sequence[str], runs: str | Path = "runs") -> list[Result]:
    """Those `results` that pass all conditions and belong to one of the sweeps, in their order.

    A filter is the name of a sweep, or a condition on a column: `sampler=ddim,heun` (one of these), `sampler!=ddim`,
    `fd_digits<0.5`, and likewise `<=`, `>`, `>=`. `null` stands for what is absent. A cell belongs to the sweep that
    its result names and to those whose plan.json below `runs` lists it.

    Raises ValueError for a column that no result has, a sweep that is not there, and a bound that is no number.
    """
    # Not to be confused with a sweep's name, which holds none of these signs.
    conditions = [(text, _CONDITION.fullmatch(text)) for text in filters]
    kept = list(results)
    sweeps = [text for text, match in conditions if match is None]
    if sweeps:
        cells = set(chain.from_iterable(_cells(sweep, results, runs) for sweep in sweeps))
        kept = [result for result in kept if result.cell in cells or result.sweep in sweeps]
    columns = {key for result in results for key in result.values} if len(sweeps) < len(filters) else set()
    for text, match in conditions:
        if match is None:
            continue
        column, sign, bound = match.groups()
        if results and column not in columns:
            raise ValueError(f"{text}: no result has a column {column}{_close(column, columns)}")
        passes = _test(text, sign, bound, [result.values.get(column) for result in results])
        kept = [result for result in kept if passes(result.values.get(column))]
    return kept


def _test(text: str, sign: str, right: str, values: Sequence[Any]) -> Callable[[Any], bool]:
    """The test of a condition whose right side is `right`; `values` are all those of the column."""
    if sign in {"=", "!="}:
        words = [word.strip() for word in right.split(",")]
        wanted = {word: _number(word) for word in words}

        def one_of(value: Any) -> bool:
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return value in wanted.values()
            return ("null" if value is None else str(value).lower() if isinstance(value, bool) else value) in wanted

        return one_of if sign == "=" else lambda value: not one_of(value)
    bound = _number(right)
    if bound is None and any(isinstance(value, (int, float)) for value in values):
        raise ValueError(f"{text}: {right or 'nothing'} is no number to compare with")
    compare = _COMPARE[sign]
    if bound is None:
        return lambda value: isinstance(value, str) and compare(value, right)
    return lambda value: (
        compare(value, bound)
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        # Dates: 2026 is a bound for created as 2026-11-21 is.
        else isinstance(value, str) and compare(value, right)
    )


# No sweep's name, of this kind or of Hydra's, holds a sign of comparison.
_CONDITION = re.compile(r"([^=<>!]+?)\s*(<=|>=|!=|=|<|>)\s*(.*)", re.DOTALL)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _cells(sweep: str, results: Sequence[Result], runs: str | Path) -> set[str]:
    """The cells that a sweep planned, if its plan is there."""
    folder = f"{os.fspath(runs)}/sweeps"
    path = f"{folder}/{sweep}/plan.json"
    try:
        content, _ = _bytes(path)
    except OSError:
        # Results that were copied here without their sweep still name it.
        if any(result.sweep == sweep for result in results):
            return set()
        names = {*_folders(folder), *(result.sweep for result in results if result.sweep)}
        raise ValueError(f"{sweep} is no sweep below {folder}, and no COLUMN=VALUE{_close(sweep, names)}") from None
    try:
        return {str(task["cell"]) for task in json.loads(content)["tasks"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is corrupt ({error!r}): move it away to select by what the results say") from error


def _close(word: str, words: set[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, sorted(words), n=4, cutoff=0.5) or sorted(words)[:40]
    return f"; choose one of {', '.join(near)}" if near else ""


def _folders(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_dir())
    except OSError:
        return []


def _read(paths: Sequence[str], unreadable: list[str] | None, finished: bool = True) -> list[Read | None]:
    """The JSON object in each file with the file's stamp; None where there is none that is fit for use."""
    stamps: dict[str, Stamp] = {}
    contents: dict[str, bytes] = {}
    failed = []
    for path in paths:
        try:
            contents[path], stamps[path] = _bytes(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            failed.append(path)
    try:
        # Parsed together, records share their keys: that takes less time, and half of the memory.
        parsed = json.loads(b"[%s]" % b",".join(contents.values()))
        if len(parsed) != len(contents):
            raise ValueError("two halves made a whole")
    except (ValueError, RecursionError):
        parsed = [_parsed(content) for content in contents.values()]
    found: dict[str, Read] = {}
    for path, record in zip(contents, parsed, strict=True):
        if isinstance(record, dict) and (not finished or record.get("status") == "done"):
            found[path] = stamps[path], record
        else:
            failed.append(path)
    if unreadable is not None:
        unreadable += failed
    return [found.get(path) for path in paths]


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _bytes(path: str) -> tuple[bytes, Stamp]:
    content, status = read_fast(path)
    return content, (status.st_mtime_ns, status.st_size, status.st_ino)


def _stamp(path: str) -> Stamp | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - see read_fast
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _cache(runs: str | Path) -> str:
    return f"{os.fspath(runs)}/cache/results.json"


def _remember(runs: str | Path, found: dict[str, Read]) -> None:
    """Pack records by column, where few values are different: a fifth of the size, and of the time to read them."""
    shapes: dict[tuple[str, ...], list[str]] = {}
    for name, (_, record) in found.items():
        shapes.setdefault(tuple(record), []).append(name)
    packed = []
    for keys, names in shapes.items():
        stamps = zip(*(found[name][0] for name in names), strict=True)
        columns = zip(*(found[name][1].values() for name in names), strict=True)
        packed.append({"keys": keys, "names": names, "stamps": list(stamps), "columns": list(map(_pack, columns))})
    body = json.dumps(packed, separators=(",", ":")).encode()
    from diffsweep.files import write_atomic

    with suppress(OSError, ValueError):
        write_atomic(_cache(runs), b"%s %08x\n%s" % (_FORMAT, zlib.crc32(body), body))


def _pack(values: Sequence[Any]) -> list[Sequence[Any]]:
    """A column as its different values and where each is, or as it is."""
    if not set(map(type, values)) <= {str, type(None)}:
        # Numbers are short, and rarely repeat; and 1, 1.0 and true would be taken for one.
        return [values]
    different = {value: place for place, value in enumerate(dict.fromkeys(values))}
    return [values] if 4 * len(different) > len(values) else [list(different), list(map(different.get, values))]


def _unpack(path: str) -> dict[str, Read]:
    known: dict[str, Read] = {}
    try:
        header, _, body = _bytes(path)[0].partition(b"\n")
        if header != b"%s %08x" % (_FORMAT, zlib.crc32(body)):
            return {}
        for shape in json.loads(body):
            columns = [
                column[0] if len(column) == 1 else list(map(column[0].__getitem__, column[1]))
                for column in shape["columns"]
            ]
            keys = shape["keys"]
            records = [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]
            stamps = zip(*shape["stamps"], strict=True)
            known |= zip(shape["names"], zip(stamps, records, strict=True), strict=True)
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return {}
    return known
