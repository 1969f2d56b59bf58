"""How far a run or sweep is, below the cell of a notebook that waits for it."""

from __future__ import annotations

import html
import io
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffsweep import caller
from diffsweep.messages import printable
from diffsweep.report.format import duration, number
from diffsweep.report.live import Names, view
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.status.folder_state import FolderReader
from diffsweep.sweep.status.monitor import Monitor
from diffsweep.sweep.store.record import Fit

# Seconds between two looks, and the lines that are kept of what a process says.
_EVERY, _LINES = 0.5, 200
_PRE = "line-height: 1.35; font-family: ui-monospace, monospace; font-size: 12px; white-space: pre; overflow-x: auto"

Display = Callable[[str], None]


def notebook_display() -> Display | None:
    """What shows HTML below the notebook's cell that runs, each in place of the one before; None outside of one."""
    module: Any = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import HTML, display

    handle: Any = display(HTML(""), display_id=True)
    return lambda text: handle.update(HTML(text))


def watch(process: subprocess.Popen[str], note: Path, display: Display) -> None:
    """Show how far `process` is until it ends, and then in one line how long it took.

    Args:
        process: a command line, with a pipe for standard error.
        note: what it tells of itself (see `caller`).
        display: shows HTML.
    """
    said: deque[str] = deque(maxlen=_LINES)
    reader = threading.Thread(target=lambda: said.extend(line.rstrip("\n") for line in process.stderr or ()))
    reader.start()
    began, look, shown = time.monotonic(), _Look(note), ""
    while process.poll() is None:
        picture = look.picture()
        if picture != shown:
            display(picture)
            shown = picture
        try:
            process.wait(_EVERY)
        except subprocess.TimeoutExpired:
            continue
    reader.join()
    took = f"{'done' if not process.returncode else 'ended'} in {duration(time.monotonic() - began)}"
    lines = html.escape(printable("\n".join(said)))
    more = f'<details><summary>{took}</summary><pre style="{_PRE}">{lines}</pre></details>'
    display(more if lines and "mistake" not in caller.read(note) else f"<div>{took}</div>")


class _Look:
    """Looks at what a process is at, again and again."""

    def __init__(self, note: Path) -> None:
        self._note = note
        self._reader = FolderReader(lambda job: None)
        self._sweep: tuple[int, Plan, Names, Monitor] | None = None

    def picture(self) -> str:
        told = caller.read(self._note)
        if "folder" in told:
            return self._of_sweep(Path(told["folder"]))
        if "fit" not in told:
            return "<div>starting</div>"
        fit = Fit(Path(told["runs"]) / "fits" / told["fit"])
        if fit.done:
            return "<div>trained; sampling and scoring</div>"
        progress = self._reader.read(str(fit.folder)).progress
        step, steps, loss = (progress[key] for key in ("step", "steps", "loss"))
        if step is None or not steps:
            return "<div>starting the training</div>"
        of_loss = f", loss {html.escape(number(loss))}" if loss is not None else ""
        return f'<div><progress value="{step}" max="{steps}"></progress> step {step:,} of {steps:,}{of_loss}</div>'

    def _of_sweep(self, folder: Path) -> str:
        from rich.console import Console

        try:
            stamp = (folder / "plan.json").stat().st_mtime_ns
            if self._sweep is None or self._sweep[0] != stamp:
                plan = Plan.read(folder)
                self._sweep = stamp, plan, Names.of(plan), Monitor(plan)
        except (OSError, ValueError):
            return "<div>planning</div>"
        _, plan, names, monitor = self._sweep
        console = Console(record=True, width=100, file=io.StringIO(), force_jupyter=False, force_terminal=True)
        console.print(view(plan, names, monitor.read(), 100, 24))
        code = console.export_html(inline_styles=True, code_format="{code}")
        return f'<pre style="{_PRE}">{code.rstrip()}</pre>'
