"""Runs and sweeps from Python, as the command line makes them: in a process of its own, in the same folders.

A notebook's kernel stays free of the training's memory and threads, and what is finished is not done again.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from diffsweep import caller
from diffsweep.mistakes import FAILURE, MISTAKE
from diffsweep.results.progress import notebook_display, watch
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.status.monitor import Monitor
from diffsweep.sweep.store.record import Fit

if TYPE_CHECKING:
    from diffsweep.results.shown import RunResult, SweepTable

# A process that was interrupted saves its state before it ends.
_PATIENCE = 10.0


def run(*overrides: str, progress: bool = True) -> RunResult:
    """The result of one run, which is trained, sampled and scored as far as that is missing.

    Args:
        overrides: as behind `diffsweep train`: "sampler=heun", "sampler.nfe=20".
        progress: whether to show how far it is: in a notebook below the cell, else as in a terminal.

    Raises:
        ValueError: for a user's mistake, in the words of the command line, which ends with exit code 2 then.
        RuntimeError: if the run fails otherwise, with the reason.
    """
    from diffsweep.results.shown import RunResult

    told, code = _process(overrides, progress)
    if "cell" not in told:
        raise _failure(told, code)
    cell = Fit(Path(told["runs"]) / "fits" / told["fit"]).cell(told["cell"])
    result = cell.result()
    if code or result is None:
        if code in (0, MISTAKE):
            raise ValueError(f"{' '.join(overrides)} gives no result")
        reason = cell.error() or cell.fit.error()
        raise RuntimeError(f"{reason or f'the run ended with exit code {code}'} (see {cell.fit.folder})")
    return RunResult(cell, result)


def sweep(*overrides: str, progress: bool = True) -> SweepTable:
    """The finished cells of a sweep, best first, as a table of pandas that shows itself with samples.

    Trainings are shared, what is finished is not done again, and a sweep that was interrupted goes on.

    Args:
        overrides: as behind `diffsweep train -m`: "sampler=ddim,heun", "schedule=cosine,linear".
        progress: as in `run`.

    Raises:
        ValueError: for a user's mistake, in the words of the command line; nothing has been trained then.
        RuntimeError: if no cell is finished, with the reasons. Where some are, the table's `failures` names the others.
    """
    from diffsweep.results.shown import sweep_table

    told, code = _process(("-m", *overrides), progress)
    folder = Path(told.get("folder", ""))
    if "folder" not in told or not (folder / "plan.json").is_file():
        raise _failure(told, code)
    plan = Plan.read(folder)
    cells = {cell: plan.run(cell).cell for cell in plan.cells}
    found = {name: result for name, cell in cells.items() if (result := cell.result()) is not None}
    state = Monitor(plan, poll_seconds=0).read()
    failures = {cell: state.cells[cell].reason or state.cells[cell].state for cell in plan.cells if cell not in found}
    if not found:
        reasons = "; ".join(dict.fromkeys(failures.values())) or f"exit code {code}"
        raise RuntimeError(f"no cell of sweep {plan.name} is finished: {reasons} (see {folder})")
    return sweep_table(plan, list(found.values()), failures)


def _failure(told: dict[str, Any], code: int) -> Exception:
    if code == 130:
        raise KeyboardInterrupt
    return RuntimeError(f"the run ended with exit code {code or FAILURE} before it began")


def _process(words: tuple[str, ...], progress: bool) -> tuple[dict[str, Any], int]:
    """What a command line told, and its exit code. Raises ValueError for a user's mistake."""
    for word in words:
        if not isinstance(word, str):
            raise ValueError(f"{word!r} is no text: write overrides as 'sampler=heun'")
    display = notebook_display() if progress else None
    with TemporaryDirectory() as folder:
        note = Path(folder) / "told.json"
        # Outside of a notebook it prints where this process does.
        silent = subprocess.DEVNULL
        errors = silent if not progress else subprocess.PIPE if display is not None else None
        process = subprocess.Popen(
            [sys.executable, "-m", "diffsweep", "train", *words],
            stdin=silent,
            stdout=silent,
            stderr=errors,
            env=caller.environment(note),
            text=True,
            errors="replace",
        )
        try:
            if display is not None:
                watch(process, note, display)
            code = process.wait()
        except KeyboardInterrupt:
            _end(process)
            raise
        told = caller.read(note)
    if "mistake" in told:
        raise ValueError(told["mistake"])
    return told, code


def _end(process: subprocess.Popen[str]) -> None:
    """Wait until an interrupted process has saved its state; it has got the same signal, unless this is no terminal."""
    import signal

    for number in (None, signal.SIGINT, signal.SIGTERM):
        if number is not None:
            process.send_signal(number)
        try:
            process.wait(_PATIENCE)
            return
        except subprocess.TimeoutExpired:
            continue
