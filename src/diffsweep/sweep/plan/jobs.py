"""The processes of a sweep: which there must be, and (jobs.json) which were started under what name.

A job trains one fit, or evaluates cells of one fit in sequence, so that imports, weights and the extractor are paid for
once. A job of cells comes after the job of its fit, a fit after the fits that teach it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from diffsweep.files import read_json, write_json
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.store.process import Process

Kind = Literal["fit", "cells", "finish"]


@dataclass(frozen=True)
class Job:
    """One process of a sweep. `after`: the places of earlier jobs in the same list that must have ended well.

    `id` is its name once it is launched: the SLURM job (`812_3`), or a number on this machine; `log` the file of what
    it says, relative to the sweep's folder.
    """

    kind: Kind
    fit: str = ""
    cells: tuple[str, ...] = ()
    after: tuple[int, ...] = ()
    id: str = ""
    log: str = ""

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Job:
        """The job that `content`, as `dataclasses.asdict` gives it, describes."""
        return cls(**{**content, "cells": tuple(content["cells"]), "after": tuple(content["after"])})


@dataclass(frozen=True)
class Todo:
    """What is missing of a plan: cells to evaluate, and fits to train for them; and what needs nothing."""

    fits: tuple[str, ...]
    cells: tuple[str, ...]
    done: tuple[str, ...]
    failed: tuple[str, ...] = ()

    @classmethod
    def of(cls, plan: Plan, mode: str = "retry") -> Todo:
        """What `plan` still needs.

        `mode`: "retry" what is not finished; "cached" leaves also what has failed before; "force" does everything
        anew; "read_only" and "plan" count as "retry" here, and run nothing elsewhere.
        """
        cells, done, failed = [], [], []
        for cell in plan.cells:
            run = plan.run(cell)
            if mode != "force" and run.cell.done:
                done.append(cell)
            elif mode == "cached" and (run.cell.error() or (not run.fit.done and run.fit.error())):
                failed.append(cell)
            else:
                cells.append(cell)
        wanted = dict.fromkeys(plan.cells[cell].fit for cell in cells)
        for fit in list(wanted):
            wanted |= dict.fromkeys(plan.needs[fit])
        done_already = {fit for fit in wanted if mode != "force" and plan.run(plan.fits[fit][0]).fit.done}
        ordered = _teachers_first([fit for fit in wanted if fit not in done_already], plan)
        return cls(tuple(ordered), tuple(cells), tuple(done), tuple(failed))

    def jobs(self, plan: Plan, cells_per_job: int | None = None) -> list[Job]:
        """The jobs that do it, teachers and fits before what needs them; at most `cells_per_job` cells in one."""
        jobs: list[Job] = []
        place: dict[str, int] = {}
        for fit in self.fits:
            place[fit] = len(jobs)
            after = tuple(place[other] for other in plan.needs[fit] if other in place)
            jobs.append(Job("fit", fit, tuple(plan.fits[fit]), after))
        wanted = set(self.cells)
        for fit, all_cells in plan.fits.items():
            cells = [cell for cell in all_cells if cell in wanted]
            size = cells_per_job or len(cells) or 1
            after = tuple(place[other] for other in (fit, *plan.needs[fit]) if other in place)
            for first in range(0, len(cells), size):
                jobs.append(Job("cells", fit, tuple(cells[first : first + size]), after))
        return jobs


def _teachers_first(fits: Sequence[str], plan: Plan) -> list[str]:
    wanted, ordered = set(fits), dict[str, None]()

    def add(fit: str, above: tuple[str, ...] = ()) -> None:
        if fit in ordered or fit not in wanted or fit in above:
            return
        for other in plan.needs[fit]:
            add(other, (*above, fit))
        ordered[fit] = None

    for fit in fits:
        add(fit)
    return list(ordered)


@dataclass(frozen=True)
class Launched:
    """jobs.json: the jobs of a sweep's last launch, and who launched them.

    `kind` is "local" or "slurm"; `launcher` is the process that waits for them, null once the jobs are on their own;
    `ended` says that every job is over and the table is written.
    """

    kind: Literal["local", "slurm"]
    jobs: tuple[Job, ...]
    launcher: Process | None = None
    ended: bool = False

    def write(self, folder: Path) -> None:
        """Write jobs.json to the sweep's folder. Raises CannotWriteError."""
        write_json(folder / "jobs.json", asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Launched | None:
        """The last launch of the sweep in `folder`; None if it has not come so far. Raises ValueError if corrupt."""
        content = read_json(folder / "jobs.json")
        if content is None:
            return None
        return cls(
            content["kind"],
            tuple(Job.parse(job) for job in content["jobs"]),
            Process.parse(content["launcher"] or {}),
            content["ended"],
        )

    def end(self, folder: Path) -> None:
        """Say that this launch is over."""
        replace(self, launcher=None, ended=True).write(folder)
