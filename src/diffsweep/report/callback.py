"""One table at the end of a sweep, whichever launcher ran its jobs and however many of them failed.

Each job leaves a note in the sweep's folder that names its cell; the launching process reads the notes.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from diffsweep.report import terminal
from diffsweep.sweep.record import Fit, read_json, write_atomic

_last: list[tuple[Path, Path]] = []


class SweepTable(Callback):
    """Remembers the sweep that is started, so that its table can be shown even if Hydra raises for a failed job."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _last.append((Path(config.hydra.sweep.dir), Path(config.paths.runs)))


def show_last() -> None:
    """Show the table of the sweep that this process launched, if it launched one."""
    while _last:
        folder, runs = _last.pop()
        results: dict[str, dict[str, Any]] = {}
        failures: list[dict[str, Any]] = []
        for path in sorted((folder / "jobs").glob("*.json"), key=lambda path: int(path.stem)):
            note = read_json(path) or {}
            cell = Fit(runs / "fits" / note["fit"]).cell(note["cell"]) if "cell" in note else None
            result = cell.result() if cell else None
            if result is not None:
                results[result["cell"]] = result
            else:
                failures.append(note)
        if results or failures:
            terminal.show_sweep(list(results.values()), failures, runs=runs)
        if results:
            table = folder / "table.csv"
            write_atomic(table, _csv(list(results.values())))
            terminal.show_where(list(results.values()), table, runs=runs)


def _csv(results: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for result in results for key in result))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(results)
    return text.getvalue()
