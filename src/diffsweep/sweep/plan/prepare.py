"""Preparation of a sweep: the plan on disk, the text before it starts, and the removal of what must be done anew."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from diffsweep.project import train_command
from diffsweep.sweep.plan import snapshot
from diffsweep.sweep.plan.compose import compose
from diffsweep.sweep.plan.folders import sweep_name
from diffsweep.sweep.plan.hydra_job import hydra_node
from diffsweep.sweep.plan.jobs import Job, LaunchRecord, RemainingWork
from diffsweep.sweep.plan.mode import Mode
from diffsweep.sweep.plan.plan import Plan, SignedConfig
from diffsweep.sweep.plan.same_method import same_methods
from diffsweep.sweep.plan.sense import doubts
from diffsweep.sweep.plan.unread_keys import refuse_unread
from diffsweep.sweep.plan.user_modules import dotted_names
from diffsweep.sweep.store.environment import Hider
from diffsweep.sweep.store.lease import Busy, Lease
from diffsweep.sweep.store.process import Process
from diffsweep.sweep.store.record import Run
from diffsweep.sweep.store.signature import Signer

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from omegaconf import DictConfig

# Folders of sweeps that this process has planned, with the plan that was there before: a sweeper may hand its overrides
# over in several batches.
_planned: dict[Path, Plan | None] = {}


def make_plan(loader: ConfigLoader, master: DictConfig, batch: Sequence[Sequence[str]], first: int) -> Plan:
    """Compose and sign `batch`, whose first task has the number `first`, and write the plan.

    Raises ValueError for a config that cannot be signed or a bad `mode`, Hydra's exception for one that cannot be
    composed, CannotWriteError; for a name, `sweep.name`, that stands for a search, for a sweep of other cells, or for
    one that is being run; before anything runs.
    """
    mode, name = Mode.of(master), sweep_name(master)
    folder, runs = Path(str(master.hydra.sweep.dir)), Path(str(master.paths.runs))
    if folder in _planned:
        plan = Plan.read(folder)
    else:
        command = train_command(*sys.argv[1:])
        plan = Plan(folder, runs, command, hydra=hydra_node(master))
    signer, hide = Signer(), Hider()
    plan = plan.with_tasks(
        (
            SignedConfig(
                cell.overrides,
                hide(cell.config, cell.environment),
                cell.choices,
                *signer.sign(cell.config),
                signer.sign_autoencoder(cell.config),
            )
            for cell in compose(loader, master, batch, refuse_unread)
        ),
        first,
    )
    # Absolute, as the jobs will read it.
    plan = replace(plan, runs=plan.runs.absolute())
    if mode.writes_plan:
        if folder not in _planned:
            before = Plan.read(folder) if (folder / "plan.json").exists() else None
            if name is not None:
                _refuse_another(name, folder, plan, before)
            _planned[folder] = before
        plan.write()
    return plan


def _refuse_another(name: str, folder: Path, plan: Plan, before: Plan | None) -> None:
    """Raise ValueError if `name` is that of something else than an earlier part of `plan`: `before`, in its folder."""
    if (folder / "search.json").exists():
        raise ValueError(f"sweep.name={name} is the name of a search: choose another")
    if before is None:
        return
    launched = LaunchRecord.read(folder)
    if launched is not None and launched.launcher is not None and launched.launcher.alive():
        raise ValueError(f"sweep.name={name} is being run by {launched.launcher}: {before.command_for('status')}")
    missing = [cell for cell in before.cells if cell not in plan.cells]
    if missing:
        raise ValueError(
            f"sweep.name={name} is a sweep with {_counted(len(missing), 'cell')} that this one has not: choose another "
            f"name, or ask for those too; it was {before.command}"
        )


def withdraw(plan: Plan) -> None:
    """Remove what `make_plan` and a launcher wrote for a sweep that was refused; one with launched jobs stays.

    What went on with an earlier sweep leaves that one as it was.
    """
    before = _planned.get(plan.folder)
    if before is not None:
        before.write()
    if before is not None or (plan.folder / "jobs.json").exists():
        return
    for path in (plan.file, plan.folder / "multirun.yaml"):
        path.unlink(missing_ok=True)
    for source in snapshot.snapshots(plan.folder):
        shutil.rmtree(source, ignore_errors=True)
    with suppress(OSError):
        plan.folder.rmdir()


def reset(plan: Plan, remaining: RemainingWork) -> None:
    """Make the remaining cells and their fits unfinished, for mode=force; what a process works on stays."""
    for cell in remaining.cells:
        reset_run(plan.run(cell))


def reset_run(run: Run) -> None:
    """Make a run unfinished, so that it is done again; what a process works on now stays as it is."""
    fit, cell, autoencoder = run.fit, run.cell, run.autoencoder
    encoded = (
        [(autoencoder, (autoencoder.done_file, autoencoder.error_file, autoencoder.checkpoints / "last.ckpt"))]
        if autoencoder is not None
        else []
    )
    for record, files in (
        *encoded,
        (fit, (fit.done_file, fit.error_file, fit.checkpoints / "last.ckpt")),
        (cell, (cell.result_file, cell.error_file)),
    ):
        with suppress(Busy), Lease(record.folder).acquire(wait=False):
            for path in files:
                path.unlink(missing_ok=True)
            if autoencoder is not None and record is autoencoder:
                # What another network has written is none of the new one's.
                shutil.rmtree(autoencoder.latents, ignore_errors=True)


def heading(plan: Plan, remaining: RemainingWork) -> str:
    """The size of a sweep and how much of it is done, in one line."""
    imported = [fit for fit, cells in plan.fits.items() if plan.part(cells[0], "pretrained") is not None]
    own = len(plan.fits) - len(imported)
    kinds = ((own, "training"), (len(imported), "imported model"), (len(plan.autoencoders), "autoencoder"))
    counted = [_counted(amount, kind) for amount, kind in kinds if amount]
    fits = " and ".join(filter(None, (", ".join(counted[:-1]), *counted[-1:])))
    line = f"sweep {plan.name}: {_counted(len(plan.cells), 'cell')} of {fits}"
    if remaining.done:
        todo = [fit for fit in remaining.fits if fit not in imported and fit not in plan.autoencoders]
        trained = f"; {_counted(len(todo), 'training')} to do" if todo else ", every training is done"
        trained = "" if len(imported) == len(plan.fits) else trained
        line += f"; {len(remaining.done)} done already, {len(remaining.cells)} to do{trained}"
    return line


def notes(plan: Plan, remaining: RemainingWork) -> list[str]:
    """Notes for the user before a sweep starts, one a line."""
    failed = (
        [f"{_counted(len(remaining.failed), 'cell')} failed before and stay so, for mode=cached"]
        if remaining.failed
        else []
    )
    # Cells share most of their parts, and so their doubts.
    unlikely = list(dict.fromkeys(text for cell in remaining.cells for text in doubts(plan.config(cell))))
    more = [f"{len(unlikely) - 3} more of this kind"] if len(unlikely) > 3 else []
    same = same_methods(plan) if remaining.cells else ()
    return [f"note: {text}" for text in (*failed, *plan.warnings, *same, *unlikely[:3], *more)]


def names(plan: Plan) -> set[str]:
    """Dotted names in the plan's configs: of the classes that its jobs import, the user's own among them."""
    return {*dotted_names(plan.parts), *dotted_names(plan.hydra)}


def config_folders(plan: Plan) -> tuple[Path, ...]:
    """The folders that the plan's configs were composed from, the main one first."""
    sources = [source["path"] for source in plan.hydra["runtime"]["config_sources"]]
    return tuple(Path(path) for path in sources if path and Path(path).is_absolute())


def with_local_ids(jobs: Sequence[Job]) -> tuple[Job, ...]:
    """`jobs` of this machine, with their ids and log files."""
    return tuple(
        replace(job, id=f"{job.kind}-{index}", log=f"logs/{job.kind}-{job.fit}-{index}.log")
        for index, job in enumerate(jobs)
    )


def record_local_launch(plan: Plan, jobs: Sequence[Job]) -> LaunchRecord:
    """Write jobs.json: this process launches `jobs` on this machine. Raises CannotWriteError."""
    launched = LaunchRecord("local", tuple(jobs), Process.current())
    launched.write(plan.folder)
    return launched


def _counted(amount: int, thing: str) -> str:
    return f"{amount} {thing}" if amount == 1 else f"{amount} {thing}s"
