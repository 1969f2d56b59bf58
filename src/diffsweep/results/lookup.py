"""A finished cell or training by its name, and its model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.sweep.store import query
from diffsweep.sweep.store.record import Cell, Fit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    import pandas as pd

    from diffsweep.diffusion import Denoiser

    # What names a cell or a training: a signature or a word, a row of a table in any of pandas' forms, or itself.
    Selector: TypeAlias = str | Fit | Cell | Mapping[str, object] | pd.Series | tuple[object, ...]


def find(run: Selector, runs: str | Path = "runs") -> Fit | Cell:
    """The folder of a cell or of a training.

    Args:
        run: a signature or the beginning of one, a row of `load`, `last` (the cell that was finished last), `best`
            (the best of those that were measured as the last one was), or what this function returns.
        runs: folder of all runs, if `run` does not say.

    Raises:
        ValueError: if there is none, or several, or it has no model.
    """
    if isinstance(run, (Fit, Cell)):
        return run
    if not isinstance(run, str):
        # A row of `itertuples` has this method of named tuples.
        fields = getattr(run, "_asdict", None)
        row: Any = run if fields is None else fields()
        try:
            known = row.get("folder")
            return Cell(Path(known)) if known else Fit(Path(runs) / "fits" / row["fit"]).cell(row["cell"])
        except (AttributeError, LookupError, TypeError):
            raise ValueError(f"{run!r} is neither a signature nor a row of results.load") from None
    if run in ("best", "last"):
        return _chosen(run, runs)
    fits = [Fit(folder) for folder in sorted(Path(runs, "fits").glob("*")) if folder.name[0] != "."]
    records: list[Fit | Cell] = [*fits, *(cell for fit in fits for cell in fit.cells())]
    found = [record for record in records if record.signature == run]
    found = found or [record for record in records if run and record.signature.startswith(run)]
    if not found:
        raise ValueError(
            f"{run!r} is no cell or fit in {runs}, nor the beginning of one, nor best or last; "
            "`diffsweep results --format csv` names them"
        )
    if len(found) > 1:
        named = ", ".join(record.signature for record in found[:6])
        raise ValueError(f"{run!r} begins {len(found)} names in {runs}: {named}{' ...' if len(found) > 6 else ''}")
    return found[0]


def _chosen(word: str, runs: str | Path) -> Cell:
    from diffsweep.report.protocol import protocol_of
    from diffsweep.report.statistics import rank

    own = [result for result in query.results(runs) if result.images is None]
    if not own:
        raise ValueError(f"no finished runs in {runs}: `python train.py` makes one")
    chosen = max(own, key=lambda result: result.created)
    if word == "best":
        alike = [result for result in own if protocol_of(result) == protocol_of(chosen)]
        chosen = min(alike, key=lambda result: rank(result, result.metric))
        if chosen.lost:
            raise ValueError(f"no cell in {runs} has a {chosen.metric}: name one")
    return Cell.of(chosen, runs)


def load_fit(run: Selector, runs: str | Path = "runs", *, trust: bool = False) -> Denoiser:
    """The model of a finished training with its averaged weights, frozen, on the CPU: ``denoiser(x, level, labels)``.

    Arguments and errors as `find`, `trust` as of `sample`; also ValueError if the training is not finished, or has no
    model.
    """
    from diffsweep.runs.load_fit import finished
    from diffsweep.runs.trust import trusting

    record = find(run, runs)
    fit = record.fit if isinstance(record, Cell) else record
    with trusting(everything=trust):
        return finished(fit.folder.parent.parent, fit.signature)
