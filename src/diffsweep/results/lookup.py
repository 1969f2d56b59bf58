"""A finished cell or training by its name, and its model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.sweep.store import query
from diffsweep.sweep.store.record import Cell, Fit

if TYPE_CHECKING:
    from diffsweep.diffusion import Denoiser


def find(which: Any, runs: str | Path = "runs") -> Fit | Cell:
    """The folder of a cell or of a training.

    Args:
        which: a signature or the beginning of one, a row of `load`, `last` (the cell that was finished last), `best`
            (the best of those that were measured as the last one was), or what this function returns.
        runs: folder of all runs, if `which` does not say.

    Raises:
        ValueError: if there is none, or several, or it has no model.
    """
    if isinstance(which, (Fit, Cell)):
        return which
    if not isinstance(which, str):
        row = which._asdict() if hasattr(which, "_asdict") else which
        try:
            known = row.get("folder")
            return Cell(Path(known)) if known else Fit(Path(runs) / "fits" / row["fit"]).cell(row["cell"])
        except (AttributeError, LookupError, TypeError):
            raise ValueError(f"{which!r} is neither a signature nor a row of results.load") from None
    if which in ("best", "last"):
        return _chosen(which, runs)
    fits = [Fit(folder) for folder in sorted(Path(runs, "fits").glob("*")) if folder.name[0] != "."]
    records: list[Fit | Cell] = [*fits, *(cell for fit in fits for cell in fit.cells())]
    found = [record for record in records if record.signature == which]
    found = found or [record for record in records if which and record.signature.startswith(which)]
    if not found:
        raise ValueError(
            f"{which!r} is no cell or fit in {runs}, nor the beginning of one, nor best or last; "
            "`diffsweep results --format csv` names them"
        )
    if len(found) > 1:
        named = ", ".join(record.signature for record in found[:6])
        raise ValueError(f"{which!r} begins {len(found)} names in {runs}: {named}{' ...' if len(found) > 6 else ''}")
    return found[0]


def _chosen(word: str, runs: str | Path) -> Cell:
    from diffsweep.report.statistics import finite, protocol, rank

    own = [result for result in query.results(runs) if result.get("images") is None]
    if not own:
        raise ValueError(f"no finished runs in {runs}: `python train.py` makes one")
    chosen = max(own, key=lambda result: str(result.get("created")))
    if word == "best":
        alike = [result for result in own if protocol(result) == protocol(chosen)]
        chosen = min(alike, key=lambda result: rank(result, str(result["metric"])))
        if finite(chosen, str(chosen["metric"])) is None:
            raise ValueError(f"no cell in {runs} has a {chosen['metric']}: name one")
    return Cell.of(chosen, runs)


def load_fit(which: Any, runs: str | Path = "runs") -> Denoiser:
    """The model of a finished training with its averaged weights, frozen, on the CPU: ``denoiser(x, level, labels)``.

    Arguments and errors as `find`; also ValueError if the training is not finished, or has no model.
    """
    from diffsweep.runs.load_fit import finished

    record = find(which, runs)
    fit = record.fit if isinstance(record, Cell) else record
    return finished(fit.folder.parent.parent, fit.signature)
