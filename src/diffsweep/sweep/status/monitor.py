"""The monitor of a sweep, which derives its state from the files of its processes and from SLURM's queue.

The state is stored nowhere: it cannot be out of date, and a killed process needs no cleaning up. A fit or cell is done
when its record says so, running when a living process holds its lease, waiting when a living launcher or SLURM's queue
has its job; else it failed, was interrupted, or was never begun. What is done is remembered, so reading again is cheap.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Set
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from diffsweep.sweep.plan.jobs import Job
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.status.folder_state import UNTOUCHED, FolderReader, FolderState, number
from diffsweep.sweep.status.job_state import JobMonitor, JobState, QueryJobs
from diffsweep.sweep.status.sweep_state import ItemState, SweepState, eta
from diffsweep.sweep.store.blocked import blocked_reason
from diffsweep.sweep.store.fast_read import names, read_object, without_collector
from diffsweep.sweep.store.result import Result

_TAIL = 2**14


class Monitor:
    """Reads the state of one sweep, again and again.

    Args:
        plan: The sweep.
        query_queue: Asks SLURM's queue about jobs, by default `sweep.slurm.queue`; called only for a sweep on SLURM.
        query_history: Likewise for jobs that have left the queue; by default `sweep.slurm.history`.
        poll_seconds: Between two questions to SLURM, at least 0.
        finished: The fits and cells known to be done, by the path of their record; monitors may share it.
    """

    def __init__(
        self,
        plan: Plan,
        query_queue: QueryJobs | None = None,
        query_history: QueryJobs | None = None,
        poll_seconds: float = 15.0,
        finished: dict[str, ItemState] | None = None,
    ) -> None:
        self.plan = plan
        self._finished = {} if finished is None else finished
        self._root = os.path.join(plan.runs, "fits")  # noqa: PTH118 - strings: a Path for each of 10,000 cells costs a second
        self._fits: dict[str, ItemState] = {}
        self._cells: dict[str, ItemState] = {}
        self._fits_left = dict.fromkeys(plan.trainings)
        self._cells_left = {fit: list(cells) for fit, cells in plan.fits.items()}
        self._begun: Set[str] = frozenset()
        self._encoders = plan.autoencoders.keys()
        self._jobs = JobMonitor(plan.folder, query_queue, query_history, poll_seconds)
        self._folder_reader = FolderReader(self._jobs.is_running)
        self._untouched_items: dict[int, tuple[JobState, ItemState]] = {}
        self._last_activity = -float("inf")

    def read(self) -> SweepState:
        """The state of the sweep now; files that cannot be read count as absent."""
        with without_collector():
            if self._jobs.read_jobs():
                self._untouched_items = {}
            self._collect()
            if (self._fits_left or self._cells_left) and self._jobs.read_queue():
                # A job may have written its result and left the queue since the first call.
                self._collect()
            fits, cells = self._folder_states()
            return self._derive(fits, cells)

    def _collect(self) -> None:
        """Remember what has become done since the last call."""
        left = self._fits_left.keys() | self._cells_left.keys()
        # One listing costs less than thousands of failed opens.
        self._begun = (left & names(self._root)) | self.plan.autoencoders.keys() if len(left) > 20 else left
        for fit in list(self._fits_left):
            path = self._path(fit)
            item = self._finished.get(path)
            if item is None and fit in self._begun:
                item = _finished_fit(read_object(f"{path}/done.json"))
            if item is not None:
                self._finished[path] = self._fits[fit] = item
                del self._fits_left[fit]
        for fit, cells in list(self._cells_left.items()):
            if fit not in self._begun:
                continue
            folder = f"{self._root}/{fit}/cells"
            there = set(cells) if len(cells) == 1 else None
            still = []
            for cell in cells:
                path = f"{folder}/{cell}"
                item = self._finished.get(path)
                if item is None:
                    there = names(folder) if there is None else there
                    if cell in there:
                        item = _finished_cell(read_object(f"{path}/result.json"))
                if item is None:
                    still.append(cell)
                else:
                    self._finished[path] = self._cells[cell] = item
            if still:
                self._cells_left[fit] = still
            else:
                del self._cells_left[fit]
                # Its weights were deleted after all of its cells were done.
                if fit in self._fits_left and not names(f"{self._root}/{fit}") & {"status.json", "error.txt"}:
                    self._fits[fit] = ItemState("done")
                    del self._fits_left[fit]

    def _path(self, training: str) -> str:
        return str(self.plan.training(training).folder) if training in self._encoders else f"{self._root}/{training}"

    def _folder_states(self) -> tuple[dict[str, FolderState], dict[str, FolderState]]:
        begun = self._begun
        fits = {
            fit: self._folder_reader.read(self._path(fit)) if fit in begun else UNTOUCHED for fit in self._fits_left
        }
        cells: dict[str, FolderState] = {}
        for fit, left in self._cells_left.items():
            there = names(f"{self._root}/{fit}/cells") if fit in begun else ()
            for cell in left:
                cells[cell] = (
                    self._folder_reader.read(f"{self._root}/{fit}/cells/{cell}") if cell in there else UNTOUCHED
                )
        return fits, cells

    def _derive(self, fits: Mapping[str, FolderState], cells: Mapping[str, FolderState]) -> SweepState:
        now = time.monotonic()
        if any(one.holder is not None for one in (*fits.values(), *cells.values())):
            self._last_activity = now
        complete = not self._fits_left and not self._cells_left
        launcher = self._jobs.launcher(complete, now - self._last_activity)

        def items(of: Mapping[str, FolderState]) -> dict[str, ItemState]:
            # By identity: hashing a job means hashing all of its cells, and that for each of them.
            job_states: dict[int, JobState] = {}
            found = {}
            for name, folder in of.items():
                job = self._jobs.job_of.get(name)
                job_state = job_states.get(id(job))
                if job_state is None:
                    job_state = job_states[id(job)] = self._jobs.of(job, launcher)
                if folder is not UNTOUCHED:
                    found[name] = self._item(folder, job, job_state)
                    continue
                known = self._untouched_items.get(id(job))
                if known is None or known[0] != job_state:
                    known = self._untouched_items[id(job)] = job_state, self._item(folder, job, job_state)
                found[name] = known[1]
            return found

        new_fits, new_cells = items(fits), items(cells)
        if self._jobs.read_history():
            new_fits, new_cells = items(fits), items(cells)
        self._block(new_fits, new_cells)
        for fit, item in new_fits.items():
            if item.state == "missing" and item.reason == "interrupted":
                for cell in self._cells_left.get(fit, ()):
                    if new_cells[cell].reason == "never begun":
                        new_cells[cell] = replace(new_cells[cell], reason="its training was interrupted")
        every_fit, every_cell = self._fits | new_fits, self._cells | new_cells
        eta_seconds, partial = eta(every_fit.values(), every_cell.values())
        launch = self._jobs.launch
        start = self._jobs.launch_time or self.plan.created
        going = launcher in ("live", "detached")
        return SweepState(
            {fit: every_fit[fit] for fit in self.plan.trainings},
            {cell: every_cell[cell] for cell in self.plan.cells},
            launcher,
            launch.launcher if launch else None,
            _seconds_since(start) if going else None,
            eta_seconds if going else None,
            partial,
        )

    def _item(self, folder: FolderState, job: Job | None, job_state: JobState) -> ItemState:
        launch = self._jobs.launch
        log = str(self.plan.folder / job.log) if job is not None and job.log else ""
        name = job.id if job is not None else ""
        status = folder.status or {}
        holder = folder.holder
        if holder is not None:
            mine = status.get("state") == "running" and (status.get("host"), status.get("pid")) == (
                holder.host,
                holder.pid,
            )
            return ItemState(
                "running",
                **folder.progress,
                images_per_second=number(status.get("images_per_second")) if mine else None,
                eta_seconds=number(status.get("eta_seconds")) if mine else None,
                stage=str(status.get("stage", "")) if mine else "",
                host=holder.host,
                job=holder.slurm_job or name,
                log=log,
            )
        seen = ItemState("missing", **folder.progress, host=str(status.get("host", "")), job=name, log=log)
        failed = replace(seen, state="failed", reason=folder.failure) if folder.failure else None
        if job_state.state in ("waiting", "running"):
            if launch is not None and launch.kind == "slurm":
                if job_state.state == "running" and failed is not None and folder.failed_job == name:
                    return failed
                at_once = job_state.state == "running" and job is not None and job.trains
                return replace(
                    seen,
                    state="running" if at_once else "waiting",
                    reason=job_state.reason,
                    hint=job_state.hint,
                    host=job_state.node,
                )
            if failed is not None and folder.failed_at >= self._jobs.launch_time:
                return failed
            stopped = status.get("state") == "waiting" and str(status.get("time", "")) >= self._jobs.launch_time
            return replace(seen, reason="interrupted") if stopped else replace(seen, state="waiting", host="")
        if job_state.state == "over":
            known = job_state.reason not in ("", "COMPLETED")
            same = folder.failed_job == name or (folder.failed_job is None and job_state.reason in ("", "FAILED"))
            if failed is not None and same:
                return failed
            where = f": see {log}" if log else ""
            word = job_state.reason + _complaint(log) if known else f"ended without a word{where}"
            return replace(seen, state="failed", reason=f"its SLURM job {name}{':' if known else ''} {word}")
        if failed is not None and not folder.blocked:
            return failed
        launcher = launch.launcher if launch is not None and not launch.ended else None
        if launcher is not None and launcher.alive() is None:
            return replace(seen, reason=f"ask on {launcher.host}, where its launcher is or was")
        return replace(seen, reason="interrupted" if folder.status else "never begun")

    def _blocked_reason(self, training: str, reason: str) -> str:
        return blocked_reason(training, reason, "autoencoder" if training in self._encoders else "fit")

    def _block(self, fits: dict[str, ItemState], cells: dict[str, ItemState]) -> None:
        """Mark, in place, what needs a failed fit as blocked, with the fit's reason and log."""
        bad: dict[str, dict[str, Any]] = {
            fit: {"state": "blocked", "reason": self._blocked_reason(fit, item.reason), "log": item.log}
            for fit, item in fits.items()
            if item.state == "failed"
        }
        if not bad:
            return
        # A fit may need a fit that needs a failed one: one round for each generation.
        more = True
        while more:
            more = False
            for fit, item in fits.items():
                if fit not in bad and item.state != "running":
                    why = next((bad[other] for other in self.plan.earlier(fit) if other in bad), None)
                    if why is not None:
                        bad[fit], more = why, True
                        fits[fit] = replace(item, **why)
        for fit, left in self._cells_left.items():
            for cell in left if fit in bad else ():
                if cells[cell].state != "running":
                    cells[cell] = replace(cells[cell], **bad[fit])


def _complaint(log: str) -> str:
    """The last message in a job's log of SLURM, such as about memory, or of a failed setup, in brackets; or nothing."""
    from diffsweep.sweep.slurm import SETUP_COMPLAINT

    complaint = re.compile(rf"^(?:slurmstepd-\S+: error: (?!\*\*\*)|{SETUP_COMPLAINT})(.+)$", re.MULTILINE)
    with suppress(OSError), open(log, "rb") as stream:  # noqa: PTH123 - as all readers here
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL))
        messages = complaint.findall(stream.read().decode(errors="replace"))
        if messages:
            return f" ({messages[-1]})"
    return ""


def _finished_fit(record: Mapping[str, Any] | None) -> ItemState | None:
    """A training whose done.json says `record`; None if that does not say that it is finished."""
    if record is None or record.get("status") != "done":
        return None
    steps = record.get("steps")
    return ItemState("done", steps, steps, host=str(record.get("host") or ""), seconds=number(record.get("seconds")))


def _finished_cell(record: Mapping[str, Any] | None) -> ItemState | None:
    """A cell whose result.json says `record`; None if that does not say that it is finished."""
    if record is None or record.get("status") != "done":
        return None
    result = Result.parse(record)
    main, spent = result.main, [result.sample_seconds, result.evaluate_seconds]
    known = [seconds for seconds in spent if seconds is not None]
    return ItemState(
        "done",
        host=str(record.get("host") or ""),
        metric=main.name,
        value=main.value,
        half=main.half,
        seconds=sum(known) if known else None,
    )


def _seconds_since(moment: str) -> float | None:
    try:
        return max(0.0, time.time() - datetime.fromisoformat(moment).timestamp())
    except ValueError:
        return None
