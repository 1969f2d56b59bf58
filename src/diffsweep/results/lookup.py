"""A finished cell or training by its name, and its model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffsweep.messages import say
from diffsweep.project import train_command
from diffsweep.sweep.store import query
from diffsweep.sweep.store.record import Cell, Fit
from diffsweep.sweep.store.result import Result

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
        run: a signature or the beginning of one, a row of `load`, or what this function returns; or, with a line on
            standard error that says what was chosen, `last` (the cell that was finished last) or `best` (the best of
            the largest group of cells that were measured alike).
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
        cell, line = best(runs) if run == "best" else newest(runs)
        say(line)
        return cell
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


def newest(runs: str | Path) -> tuple[Cell, str]:
    """The cell of a trained model that was finished last, and a line that says which it is. Raises ValueError."""
    chosen = max(_own(runs), key=lambda result: result.created)
    return Cell.of(chosen, runs), f"last: cell {chosen.cell} ({_options(chosen)}), finished {chosen.created or 'once'}"


def best(runs: str | Path) -> tuple[Cell, str]:
    """The best cell among the largest group of cells that were measured alike, and a line that says why it is that one.

    Of groups of the same size it is the one with the newest cell. Raises ValueError if no cell has a number.
    """
    from diffsweep.report.format import count, number, things
    from diffsweep.report.protocol import by_protocol
    from diffsweep.report.statistics import rank

    groups = by_protocol(result for result in _own(runs) if not result.lost)
    if not groups:
        raise ValueError(f"no cell in {runs} has a finite main number: name one")
    group = max(groups.values(), key=lambda group: (len(group), max(result.created for result in group)))
    chosen = min(group, key=lambda result: rank(result, result.metric))
    how = f"{count(chosen.samples)} samples against {chosen.option('dataset')}"
    others = sum(map(len, groups.values())) - len(group)
    more = f"; {things(others, 'cell')} measured otherwise left out (`diffsweep results` shows all)" if others else ""
    return Cell.of(chosen, runs), (
        f"best: cell {chosen.cell} ({_options(chosen)}), {chosen.metric} {number(chosen.main.value)}, the best of "
        f"{things(len(group), 'cell')} with {how}{more}"
    )


def _own(runs: str | Path) -> list[Result]:
    """The results of trained models. Raises ValueError if there are none."""
    own = [result for result in query.results(runs) if result.images is None]
    if not own:
        raise ValueError(f"no finished runs in {runs}: `{train_command()}` makes one")
    return own


def _options(result: Result) -> str:
    return " ".join(f"{group}={option}" for group, option in result.options.items()) or "no choices recorded"


def load_fit(run: Selector, runs: str | Path = "runs", *, trust: bool = False) -> Denoiser:
    """The model of a finished training with its averaged weights, on the CPU: ``denoiser(x, level, condition)``.

    Arguments and errors as `find`, `trust` as of `sample`; also ValueError if the training is not finished, or has no
    model.
    """
    from diffsweep.runs.load_fit import finished, weights_choice
    from diffsweep.runs.trust import trusting

    record = find(run, runs)
    fit = record.fit if isinstance(record, Cell) else record
    with trusting(everything=trust):
        weights = weights_choice(record.config()) if isinstance(record, Cell) else None
        return finished(fit.folder.parent.parent, fit.signature, weights=weights)
