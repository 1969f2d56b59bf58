"""From the overrides that a sweeper hands over to a plan on the disk; what is said and undone before it runs."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from diffsweep.sweep.plan.compose import compose
from diffsweep.sweep.plan.hydra_job import frozen
from diffsweep.sweep.plan.jobs import Job, Launched, Todo
from diffsweep.sweep.plan.plan import MODES, Plan, Signed
from diffsweep.sweep.store.lease import Busy, Lease
from diffsweep.sweep.store.process import Process
from diffsweep.sweep.store.record import Run
from diffsweep.sweep.store.signature import Signer

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from omegaconf import DictConfig

# Sweeps that this process has begun: a sweeper may hand its overrides over in several batches.
_begun: set[Path] = set()


def begin(loader: ConfigLoader, master: DictConfig, batch: Sequence[Sequence[str]], first: int) -> Plan:
    """Compose and sign `batch`, whose first task has the number `first`, and write the plan.

    Raises ValueError for a config that cannot be signed or a bad `mode`, Hydra's exception for one that cannot be
    composed, CannotWriteError; before anything runs.
    """
    mode(master)
    folder, runs = Path(str(master.hydra.sweep.dir)), Path(str(master.paths.runs))
    if folder in _begun:
        plan = Plan.read(folder)
    else:
        command = shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])
        plan = Plan(folder, runs, command, hydra=frozen(master))
    sign = Signer().sign
    plan = plan.adding((Signed(*one, *sign(one.config)) for one in compose(loader, master, batch)), first)
    # Absolute, as the jobs will read it.
    plan = replace(plan, runs=plan.runs.absolute())
    if mode(master) not in ("plan", "prefetch"):
        plan.write()
        _begun.add(folder)
    return plan


def withdraw(plan: Plan) -> None:
    """Remove what `begin` and a launcher have written for a sweep that cannot be launched; one that was stays."""
    if (plan.folder / "jobs.json").exists():
        return
    for path in (plan.file, plan.folder / "multirun.yaml"):
        path.unlink(missing_ok=True)
    for source in plan.folder.glob("source-*"):
        shutil.rmtree(source, ignore_errors=True)
    with suppress(OSError):
        plan.folder.rmdir()


def mode(config: DictConfig) -> str:
    """The reuse policy that a config asks for. Raises ValueError for an unknown one."""
    asked = config.get("mode", "retry")
    if asked not in MODES:
        raise ValueError(f"mode={asked} is unknown: choose one of {', '.join(MODES)}")
    return asked


def forget(plan: Plan, todo: Todo) -> None:
    """Make unfinished what `mode=force` asks to be done again, unless somebody is at it just now."""
    for cell in todo.cells:
        undo(plan.run(cell))


def undo(run: Run) -> None:
    """Make a run unfinished, so that it is done again; what somebody is at just now stays as it is."""
    fit, cell = run.fit, run.cell
    for record, files in (
        (fit, (fit.done_file, fit.error_file, fit.checkpoints / "last.ckpt")),
        (cell, (cell.result_file, cell.error_file)),
    ):
        with suppress(Busy), Lease(record.folder).acquire(wait=False):
            for path in files:
                path.unlink(missing_ok=True)


def heading(plan: Plan, todo: Todo) -> str:
    """What a sweep is, and how much of it is done, in one line."""
    line = f"sweep {plan.name}: {_things(len(plan.cells), 'cell')} of {_things(len(plan.fits), 'training')}"
    if todo.done:
        trained = f"; {_things(len(todo.fits), 'training')} to do" if todo.fits else ", every training is done"
        line += f"; {len(todo.done)} done already, {len(todo.cells)} to do{trained}"
    return line


def notes(plan: Plan, todo: Todo) -> list[str]:
    """What a user should hear before a sweep starts."""
    failed = [f"{_things(len(todo.failed), 'cell')} failed before and stay so, for mode=cached"] if todo.failed else []
    return [f"note: {text}" for text in (*failed, *plan.warnings)]


def configs(plan: Plan) -> tuple[Path, ...]:
    """The folders that the plan's configs were composed from."""
    sources = [source["path"] for source in plan.hydra["runtime"]["config_sources"]]
    return tuple(Path(path) for path in sources if path and Path(path).is_absolute())


def named(jobs: Sequence[Job]) -> tuple[Job, ...]:
    """`jobs` of this machine, with the names and logs that they go by."""
    return tuple(
        replace(job, id=f"{job.kind}-{index}", log=f"logs/{job.kind}-{job.fit}-{index}.log")
        for index, job in enumerate(jobs)
    )


def local(plan: Plan, jobs: Sequence[Job]) -> Launched:
    """Note that this process launches `jobs` on this machine. Raises CannotWriteError."""
    launched = Launched("local", tuple(jobs), Process.current())
    launched.write(plan.folder)
    return launched


def _things(amount: int, thing: str) -> str:
    return f"{amount} {thing}" if amount == 1 else f"{amount} {thing}s"
