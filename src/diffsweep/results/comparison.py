"""What each option of a choice is worth, on pairs of cells that differ in nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.sweep.store.record import Cell
from diffsweep.sweep.store.result import Result, larger_is_better

if TYPE_CHECKING:
    import pandas as pd


def compare(df: pd.DataFrame, by: str | Sequence[str] = "sampler", metric: str | None = None) -> pd.DataFrame:
    """What each option of a choice is worth beside the best one, on pairs of cells that differ in nothing else.

    Args:
        df: of `load`, or part of it; cells that were measured alike.
        by: a group, such as sampler or guidance, or a setting that was varied, such as "sampler.nfe"; several are taken
            together, so that an option is one of each.
        metric: a number of the cells; their main one, if they have the same.

    Returns:
        One row an option, the best first (its difference is 0): `difference`, the mean of option - best over `pairs`
        many pairs; its interval from `low` to `high`, null where nothing tells it, so wide that with 95 % the truly
        best option is the first or one whose interval contains 0; `wins` and `losses` against the best; `seeds`, how
        many training seeds the pairs are of. With one, the interval is that of a finite number of samples from these
        very models; with several, it is about other seeds too (see `report.statistics`).

    Raises:
        ValueError: for cells that were measured differently, a choice that does not vary, a number that no cell has, if
            no two cells differ in this choice only, or if there are no cells.
    """
    import pandas as pd

    from diffsweep.report.factors import effects, factors
    from diffsweep.report.fill_defaults import fill_defaults
    from diffsweep.report.protocol import TITLES, by_protocol, differing_fields, with_main_number

    keys = [by] if isinstance(by, str) else list(by)
    if not keys:
        raise ValueError("by is empty: name a choice, such as sampler")
    cells = _records(df)
    mains = {cell.metric for cell in cells if cell.metric}
    if metric is None and len(mains) != 1:
        raise ValueError(f"the main metrics of these cells are {', '.join(sorted(mains)) or 'none'}: say metric=NAME")
    name = metric or mains.pop()
    cells = with_main_number(cells, name)
    differing = [TITLES[field] for field in differing_fields(list(by_protocol(cells)))]
    if differing:
        raise ValueError(f"these cells differ in {', '.join(differing)}: choose some, as df[df.samples == 500]")
    folders = dict(zip(df["cell"], df["folder"], strict=True))
    cells = fill_defaults(cells, lambda cell: Cell(Path(folders[cell.cell])).config())
    varied = factors(cells)
    unvaried = [key for key in keys if key not in varied]
    if unvaried:
        raise ValueError(f"these cells do not differ in {unvaried[0]}, but in {', '.join(varied) or 'nothing'}")
    found = effects(cells, name, *keys)
    if not found:
        others = [key for key in varied if key not in keys]
        why = f"they differ in {', '.join(others)} as well" if others else "they are of different trainings"
        if sum(cell.value(name) is not None for cell in cells) < 2:
            why = f"the others have no {name}"
        raise ValueError(f"no two of these cells differ in {' and '.join(keys)} only: {why}")
    options = {", ".join(one): one for one in zip(*(varied[key] for key in keys), strict=True)}
    rows = [dict(zip(keys, options[found[0].beside], strict=True)) | {"difference": 0.0}]
    rows[0] |= dict.fromkeys(("pairs", "wins", "losses", "seeds"), 0)
    for effect in found:
        row: dict[str, Any] = dict(zip(keys, options[effect.option], strict=True))
        row |= {"difference": sum(effect.pairs) / len(effect.pairs), "pairs": len(effect.pairs), "seeds": 1}
        if effect.mean is not None:
            row |= {"low": effect.mean.low, "high": effect.mean.high, "seeds": effect.mean.seeds}
        worse = (gap < 0 if larger_is_better(name) else gap > 0 for gap in effect.pairs)
        rows.append(row | {"wins": effect.wins, "losses": sum(worse)})
    return pd.DataFrame(
        rows, columns=pd.Index([*keys, "difference", "low", "high", "pairs", "wins", "losses", "seeds"])
    )


def _records(df: pd.DataFrame) -> list[Result]:
    """The results of the cells of a table, with their jackknife values."""
    if not {"cell", "folder"} <= set(df):
        raise ValueError("a table without the column folder of results.load names no cells: keep it, and cell")
    if df.empty:
        raise ValueError("there are no cells to compare: the table is empty")
    found = []
    for folder in df["folder"]:
        result = Cell(Path(folder)).result()
        if result is None:
            raise ValueError(f"{folder} has no result any more: load the table again")
        found.append(result)
    return found
