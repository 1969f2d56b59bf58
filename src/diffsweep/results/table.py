"""A table of all finished cells."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.messages import printable
from diffsweep.project import train_command
from diffsweep.sweep.store import query
from diffsweep.sweep.store.result import GROUPS, Result

if TYPE_CHECKING:
    import pandas as pd


# What few cells differ in.
_CATEGORIES = {*GROUPS, "metric", "extractor", "reference_split", "resize", "sweep"}


def load(runs: str | Path = "runs", *filters: str) -> pd.DataFrame:
    """All finished cells, one a row, with the columns of their result.json.

    The choices are categories, numbers are numbers (whole ones that some cells lack: Int64), and `created` is a time.
    `folder` is where the cell lies; the values by block, by which `compare` finds its intervals, are left there.

    Args:
        runs: folder of all runs.
        filters: as of `diffsweep results`: "sampler=ddim,heun", "fd_digits<0.5", or the name of a sweep.

    Raises:
        ValueError: if there are no finished cells, or none passes, or a filter cannot be understood.
    """
    unreadable: list[str] = []
    every = query.results(runs, unreadable)
    if unreadable:
        warnings.warn(printable(f"left out as unreadable: {', '.join(unreadable)}"), stacklevel=2)
    if not every:
        raise ValueError(f"no finished runs in {runs}: `{train_command()}` makes one")
    chosen = query.select(every, filters, runs)
    if not chosen:
        raise ValueError(f"none of the {len(every):,} finished runs passes {' '.join(filters)}")
    return load_results(chosen, runs)


def load_results(found: Sequence[Result], runs: str | Path) -> pd.DataFrame:
    """The table of some results below `runs`, one a row, in their order; see `load`."""
    import pandas as pd

    found = [result.without_jackknife() for result in found]
    columns = {name: None for result in found for name in result.values}
    table: dict[str, Any] = {name: _typed(name, [result.values.get(name) for result in found]) for name in columns}
    fits = Path(runs).absolute() / "fits"
    table["folder"] = [f"{fits}/{result.fit}/cells/{result.cell}" for result in found]
    return pd.DataFrame(table)


def _typed(name: str, values: list[Any]) -> Any:
    import numpy as np
    import pandas as pd

    kinds = {type(value) for value in values if value is not None}
    absent = any(value is None for value in values)
    if name == "created":
        return pd.to_datetime(pd.Series(values, dtype=object), utc=True, errors="coerce")
    if name in _CATEGORIES and kinds <= {str}:
        return pd.Categorical(values)
    if kinds and kinds <= {int, float}:
        if float in kinds:
            return np.array(values, dtype=float)
        if all(value is None or abs(value) < 2**63 for value in values):
            return pd.array(values, dtype="Int64" if absent else "int64")
    if kinds == {bool}:
        return pd.array(values, dtype="boolean" if absent else "bool")
    return pd.Series(values, dtype=None if kinds == {str} else object)
