"""`diffsweep status` and `diffsweep cancel`: what the sweeps of a folder are doing, and an end to one of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffsweep import messages
from diffsweep.report.live import LiveView, Names, standing, things, view
from diffsweep.sweep.plan.jobs import LaunchRecord
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.status.monitor import Monitor
from diffsweep.sweep.status.sweep_state import ItemState, SweepState
from diffsweep.sweep.store.lease import Lease
from diffsweep.sweep.store.process import Process

_NEWEST = 5
# Jobs save their state when they are told to stop: a launcher waits a minute for them.
_PATIENCE = 90.0


def sweeps(runs: Path) -> list[Path]:
    """The folders of all sweeps below the folder `runs`, newest last."""
    found = []
    with suppress(OSError), os.scandir(runs / "sweeps") as entries:
        for entry in entries:
            with suppress(OSError):
                found.append(((Path(entry.path) / "plan.json").stat().st_mtime_ns, entry.name, Path(entry.path)))
    return [path for *_, path in sorted(found)]


def find(runs: Path, sweep: str) -> Path:
    """The folder of a sweep, by its name, the beginning of it, its path, or `last` for the newest.

    Raises ValueError, naming the newest ones, if there is none or more than one.
    """
    known = sweeps(runs)
    if sweep == "last" and known:
        return known[-1]
    for path in (runs / "sweeps" / sweep, Path(sweep)):
        if sweep and (path / "plan.json").is_file():
            return path
    matching = [path for path in known if path.name.startswith(sweep)] if sweep else []
    if len(matching) == 1:
        return matching[0]
    if not known:
        raise ValueError(
            f"sweep {sweep} is unknown: there is no sweep below {runs / 'sweeps'}; paths.runs chooses runs"
        )
    several = f"sweep {sweep} may be any of {len(matching)}" if matching else f"sweep {sweep} is unknown"
    newest = ", ".join(path.name for path in reversed((matching or known)[-_NEWEST:]))
    raise ValueError(f"{several}: the newest are {newest}")


def status(runs: Path, sweep: str | None, watch: bool) -> int:
    """Show what goes on in a sweep or, without one, a line about each.

    `watch`: go on showing it until it is over or Ctrl-C. Returns the exit code, 0. Raises ValueError as `find`.
    """
    console = messages.console()
    if sweep is None and not watch:
        _list(runs, console)
        return 0
    folder = find(runs, sweep or "last")
    look, plan = _watch(folder, console) if watch else _look(Plan.read(folder))
    # Paths and commands are there to be copied: lines are never broken.
    console.print(view(plan, Names.of(plan), look, console.width), soft_wrap=True)
    return 0


def cancel(runs: Path, sweep: str) -> int:
    """Stop a sweep: its launcher and jobs on this machine, which save their state, or its jobs in SLURM's queue.

    What is finished stays. Returns the exit code: 0, or 1 if something does not end. Raises ValueError as `find`, and
    for a sweep that another machine must be asked about.
    """
    folder = find(runs, sweep)
    plan, launched = Plan.read(folder), LaunchRecord.read(folder)
    console = messages.console()
    if launched is None or launched.ended:
        _say(console, f"sweep {plan.name} has no jobs")
    elif launched.kind == "slurm":
        if not _cancel_slurm(plan, console):
            return 1
    elif not _cancel_local(plan, launched, console):
        return 1
    counts = Monitor(plan).read().counts
    left = len(plan.cells) - counts["done"]
    _say(console, f"{counts['done']} of {len(plan.cells)} cells are finished and stay")
    if left:
        _say(console, f"{left} are left: `{plan.command_for('resume')}`")
    return 0


def _look(plan: Plan) -> tuple[SweepState, Plan]:
    return Monitor(plan).read(), plan


def _watch(folder: Path, console: Console) -> tuple[SweepState, Plan]:
    """Show a sweep until it is over; the last look at it. A search adds to its plan as it goes on."""
    known: dict[str, ItemState] = {}
    stamp, plan = _stamp(folder), Plan.read(folder)
    watch = Monitor(plan, finished=known)
    look = watch.read()
    with suppress(KeyboardInterrupt), LiveView(plan, console) as live:
        live.show(look)
        while not look.over:
            time.sleep(1.0)
            if _stamp(folder) != stamp:
                stamp, plan = _stamp(folder), Plan.read(folder)
                watch = Monitor(plan, finished=known)
                live.replan(plan)
            look = watch.read()
            live.show(look)
    return look, plan


def _stamp(folder: Path) -> tuple[int, int]:
    status = (folder / "plan.json").stat()
    return status.st_mtime_ns, status.st_ino


def _list(runs: Path, console: Console) -> None:
    folders = sweeps(runs)
    if not folders:
        _say(console, f"no sweeps below {runs / 'sweeps'}")
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("sweep", overflow="fold")
    for name in ("done", "running", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", overflow="fold")
    known: dict[str, ItemState] = {}
    for folder in folders:
        try:
            plan = Plan.read(folder)
        except (ValueError, OSError) as error:
            table.add_row(Text(folder.name), "", "", "", Text(str(error)))
            continue
        look = Monitor(plan, finished=known).read()
        counts = look.counts
        running = counts["running"] + look.fit_counts["running"]
        failed = counts["failed"] + counts["blocked"]
        numbers = [f"{counts['done']}/{len(look.cells)}", str(running or ""), str(failed or "")]
        table.add_row(Text(plan.name), *numbers, Text(standing(look, plan)))
    console.print(table)


def _cancel_local(plan: Plan, launched: LaunchRecord, console: Console) -> bool:
    launcher = launched.launcher
    alive = launcher.alive() if launcher is not None else False
    if launcher is not None and alive is None:
        raise ValueError(f"sweep {plan.name} was launched on {launcher.host}: say `{plan.command_for('cancel')}` there")
    if launcher is not None and alive:
        _say(console, f"stopping {launcher}: its jobs save their state")
        # Not SIGINT: what a script starts in the background ignores it.
        if not _stop([launcher], signal.SIGTERM):
            _say(console, f"{launcher} does not end: `kill {launcher.pid}` ends it at once")
            return False
    orphans = _orphans(plan)
    if orphans:
        _say(console, f"stopping {things(len(orphans), 'job')} whose launcher is gone")
        if not _stop(orphans, signal.SIGTERM):
            _say(console, "they do not end: " + ", ".join(str(one) for one in orphans if one.alive()))
            return False
    return True


def _orphans(plan: Plan) -> list[Process]:
    """Living processes on this machine that hold a lease of this sweep's records, and work for this sweep."""
    records = [plan.training(signature).folder for signature in plan.trainings]
    records += [plan.cell(cell).folder for cell in plan.cells]
    found = {holder.pid: holder for folder in records if (holder := Lease(folder).holder()) and holder.alive()}
    return [process for pid, process in found.items() if pid != os.getpid() and _works_for(plan, pid)]


def _works_for(plan: Plan, pid: int) -> bool:
    """Whether a process runs from this sweep's snapshot or was told its folder; it may be another sweep's."""
    import psutil

    folder = str(plan.folder.absolute())
    with suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        words = [*process.cmdline(), *process.environ().get("PYTHONPATH", "").split(os.pathsep)]
        return any(Path(word).is_relative_to(folder) for word in words)
    return False


def _stop(processes: Sequence[Process], number: signal.Signals) -> bool:
    """Send a signal and wait; whether all are gone."""
    for process in processes:
        # Asked once more: a number is given to another process soon after.
        if process.alive():
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)
    end = time.monotonic() + _PATIENCE
    while any(process.alive() for process in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _cancel_slurm(plan: Plan, console: Console) -> bool:
    from diffsweep.sweep import slurm

    end = time.monotonic() + _PATIENCE
    announced, left = False, list[str]()
    # Again and again: a launcher that lives may be about to submit more.
    while time.monotonic() < end:
        launched = LaunchRecord.read(plan.folder)
        # Jobs of another sweep that this one waits for are that one's to cancel.
        ids = [job.id for job in launched.jobs if job.id and not job.sweep] if launched is not None else []
        queue = slurm.queue(ids)
        if queue is None:
            raise ValueError(f"SLURM cannot be asked from here: say `{plan.command_for('cancel')}` on a login node")
        left = [name for name in ids if name in queue]
        if not left:
            return True
        if not announced:
            _say(console, f"cancelling {things(len(left), 'SLURM job')}")
            announced = True
        slurm.cancel(left)
        time.sleep(1.0)
    _say(console, f"SLURM still has {', '.join(left[:_NEWEST])}: they may need a moment to save their state")
    return False


def _say(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)
