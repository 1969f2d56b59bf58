"""The jobs of a sweep: which are needed, and which were started under what name (jobs.json).

A job trains one autoencoder or fit, or evaluates cells of one fit in sequence, so that imports, weights and the
extractor are paid for once. A job of cells comes after the job of its fit, a job of a fit after those of its
autoencoder and its teachers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from diffsweep.files import read_json, write_json
from diffsweep.sweep.plan.mode import Mode
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.store.process import Process
from diffsweep.sweep.store.record import TrainingRecord

Kind = Literal["autoencoder", "fit", "cells", "finish", "worker"]


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Attributes:
        kind: "fit" and "autoencoder" train; "cells" evaluates; "finish" writes the table after all others;
            "worker" runs trials of a search.
        fit: The fit or autoencoder that it trains, or the fit whose cells it evaluates.
        cells: The cells that it evaluates; of a job that trains, all cells of what it trains.
        after: Indices, in the same list, of earlier jobs that must have succeeded.
        id: Its name once it is launched: the SLURM job (`812_3`), or a name on this machine.
        log: The file of its output, relative to the sweep's folder.
        sweep: The name of the sweep that launched it, if it is another one that needs the same; that one cancels it.
    """

    kind: Kind
    fit: str = ""
    cells: tuple[str, ...] = ()
    after: tuple[int, ...] = ()
    id: str = ""
    log: str = ""
    sweep: str = ""

    @property
    def trains(self) -> bool:
        """Whether it trains something, be it a fit or an autoencoder."""
        return self.kind in ("autoencoder", "fit")

    @property
    def resources_key(self) -> str:
        """The block of the group `resources` that it asks for: an autoencoder is a training as a fit is."""
        return f"resources.{'fit' if self.trains else self.kind}"

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Job:
        """The job that `content`, as `dataclasses.asdict` gives it, describes."""
        return cls(**{**content, "cells": tuple(content["cells"]), "after": tuple(content["after"])})


@dataclass(frozen=True)
class RemainingWork:
    """The part of a plan that is still to be done.

    `fits` to train, autoencoders among them, and `cells` to evaluate; `done` are finished cells, `failed` cells that
    failed before and are left so.
    """

    fits: tuple[str, ...]
    cells: tuple[str, ...]
    done: tuple[str, ...]
    failed: tuple[str, ...] = ()

    @classmethod
    def of(cls, plan: Plan, mode: Mode = Mode.RETRY) -> RemainingWork:
        """The work that `plan` still needs under the reuse policy `mode`."""
        cells, done, failed = [], [], []
        for cell in plan.cells:
            run = plan.run(cell)
            if not mode.forces and run.cell.done:
                done.append(cell)
            elif mode.keeps_failures and (run.cell.error() or any(map(_failed, (run.fit, run.autoencoder)))):
                failed.append(cell)
            else:
                cells.append(cell)
        wanted = dict.fromkeys(plan.cells[cell].fit for cell in cells)
        for fit in list(wanted):
            wanted |= dict.fromkeys(plan.earlier(fit))
        # A teacher may have an autoencoder of its own.
        for fit in list(wanted):
            wanted |= dict.fromkeys(plan.earlier(fit))
        done_already = {fit for fit in wanted if not mode.forces and plan.training(fit).done}
        # Level by level, as far as fits do not need one another.
        levels = sorted(wanted, key=lambda fit: fit not in plan.autoencoders)
        ordered = _teachers_first([fit for fit in levels if fit not in done_already], plan)
        return cls(tuple(ordered), tuple(cells), tuple(done), tuple(failed))

    def jobs(self, plan: Plan, cells_per_job: int | None = None) -> list[Job]:
        """The jobs that do this work, each after the jobs that it depends on; at most `cells_per_job` cells in one."""
        jobs: list[Job] = []
        index_of: dict[str, int] = {}
        for fit in self.fits:
            index_of[fit] = len(jobs)
            after = tuple(index_of[other] for other in plan.earlier(fit) if other in index_of)
            kind = "autoencoder" if fit in plan.autoencoders else "fit"
            jobs.append(Job(kind, fit, tuple(plan.trainings[fit]), after))
        wanted = set(self.cells)
        for fit, all_cells in plan.fits.items():
            cells = [cell for cell in all_cells if cell in wanted]
            size = cells_per_job or len(cells) or 1
            after = tuple(index_of[other] for other in (fit, *plan.earlier(fit)) if other in index_of)
            for first in range(0, len(cells), size):
                jobs.append(Job("cells", fit, tuple(cells[first : first + size]), after))
        return jobs


def _failed(record: TrainingRecord | None) -> bool:
    return record is not None and not record.done and record.error() is not None


def _teachers_first(fits: Sequence[str], plan: Plan) -> list[str]:
    wanted, ordered = set(fits), dict[str, None]()

    def add(fit: str, above: tuple[str, ...] = ()) -> None:
        if fit in ordered or fit not in wanted or fit in above:
            return
        for other in plan.earlier(fit):
            add(other, (*above, fit))
        ordered[fit] = None

    for fit in fits:
        add(fit)
    return list(ordered)


@dataclass(frozen=True)
class LaunchRecord:
    """The record of a sweep's last launch, jobs.json: its jobs, and the process that launched them.

    `launcher` is the process that waits for the jobs, null if none does; `ended` says that every job is over and the
    table is written.
    """

    kind: Literal["local", "slurm"]
    jobs: tuple[Job, ...]
    launcher: Process | None = None
    ended: bool = False

    def write(self, folder: Path) -> None:
        """Write jobs.json to the sweep's folder. Raises CannotWriteError."""
        write_json(folder / "jobs.json", asdict(self))

    @classmethod
    def read(cls, folder: Path) -> LaunchRecord | None:
        """The last launch of the sweep in `folder`; None if it was never launched. Raises ValueError if corrupt."""
        content = read_json(folder / "jobs.json")
        if content is None:
            return None
        try:
            return cls(
                content["kind"],
                tuple(Job.parse(job) for job in content["jobs"]),
                Process.parse(content["launcher"] or {}),
                content["ended"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            file = folder / "jobs.json"
            raise ValueError(f"{file} is no record of jobs that this version can read ({error!r})") from error

    @staticmethod
    def remove(folder: Path) -> None:
        """Forget the launch of the sweep in `folder`, of which nothing was started."""
        (folder / "jobs.json").unlink(missing_ok=True)

    def end(self, folder: Path) -> None:
        """Record that this launch is over."""
        replace(self, launcher=None, ended=True).write(folder)
