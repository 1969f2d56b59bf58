"""What goes on in a sweep, derived at every look from what its processes left in files and from SLURM's queue.

Nobody keeps this state: it cannot be out of date, and a killed process needs no cleaning up. Work is done when its
record says so, running when a living process holds its lease, waiting when a living launcher or SLURM's queue still
has its job; else it failed, was interrupted, or was never begun. What is done is remembered, so that looking again is
cheap.
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
from diffsweep.sweep.status.folder_state import NOTHING, Evidence, Folders, number
from diffsweep.sweep.status.job_state import Ask, Outlook, Outlooks
from diffsweep.sweep.status.sweep_state import Item, Look, blocked, eta
from diffsweep.sweep.store.fast_read import names, read_object, without_collector

_COMPLAINT = re.compile(r"^slurmstepd-\S+: error: (?!\*\*\*)(.+)$", re.MULTILINE)
_TAIL = 2**14


class Watch:
    """Looks at one sweep, again and again.

    Args:
        plan: The sweep.
        queue: Tells what SLURM's queue knows about jobs, None while it cannot be asked; by default `sweep.slurm.queue`,
            and only for a sweep that was launched there.
        history: Likewise for jobs that have left the queue; by default `sweep.slurm.history`.
        every: Seconds between two questions to SLURM, at least 0.
        finished: What is known to be done, by the path of its record: share one among the watches of many sweeps.
    """

    def __init__(
        self,
        plan: Plan,
        queue: Ask | None = None,
        history: Ask | None = None,
        every: float = 15.0,
        finished: dict[str, Item] | None = None,
    ) -> None:
        self.plan = plan
        self._finished = {} if finished is None else finished
        self._root = os.path.join(plan.runs, "fits")  # noqa: PTH118 - strings: a Path for each of 10,000 cells costs a second
        self._fits: dict[str, Item] = {}
        self._cells: dict[str, Item] = {}
        self._fits_left = dict.fromkeys(plan.fits)
        self._cells_left = {fit: list(cells) for fit, cells in plan.fits.items()}
        self._begun: Set[str] = frozenset()
        self._outlooks = Outlooks(plan.folder, queue, history, every)
        self._folders = Folders(self._outlooks.at_work)
        self._untouched: dict[int, tuple[Outlook, Item]] = {}
        self._last_sign = -float("inf")

    def look(self) -> Look:
        """How everything stands now. Unreadable files count as absent."""
        with without_collector():
            if self._outlooks.read_jobs():
                self._untouched = {}
            self._collect()
            if (self._fits_left or self._cells_left) and self._outlooks.read_queue():
                # A job may have left its result and then the queue since.
                self._collect()
            fits, cells = self._evidence_of_all()
            return self._derive(fits, cells)

    # ---- what is done

    def _collect(self) -> None:
        """Remember what has become done since the last look."""
        left = self._fits_left.keys() | self._cells_left.keys()
        # One listing, not thousands of questions for what is not there.
        self._begun = left & names(self._root) if len(left) > 20 else left
        for fit in list(self._fits_left):
            path = f"{self._root}/{fit}"
            item = self._finished.get(path)
            if item is None and fit in self._begun:
                item = _done(read_object(f"{path}/done.json"), "seconds")
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
                        item = _done(read_object(f"{path}/result.json"), "sample_seconds", "evaluate_seconds")
                if item is None:
                    still.append(cell)
                else:
                    self._finished[path] = self._cells[cell] = item
            if still:
                self._cells_left[fit] = still
            else:
                del self._cells_left[fit]
                # Its weights were cleared away after all that they were for.
                if fit in self._fits_left and not names(f"{self._root}/{fit}") & {"status.json", "error.txt"}:
                    self._fits[fit] = Item("done")
                    del self._fits_left[fit]

    def _evidence_of_all(self) -> tuple[dict[str, Evidence], dict[str, Evidence]]:
        begun = self._begun
        fits = {fit: self._folders.read(f"{self._root}/{fit}") if fit in begun else NOTHING for fit in self._fits_left}
        cells: dict[str, Evidence] = {}
        for fit, left in self._cells_left.items():
            there = names(f"{self._root}/{fit}/cells") if fit in begun else ()
            for cell in left:
                cells[cell] = self._folders.read(f"{self._root}/{fit}/cells/{cell}") if cell in there else NOTHING
        return fits, cells

    # ---- what follows

    def _derive(self, fits: Mapping[str, Evidence], cells: Mapping[str, Evidence]) -> Look:
        now = time.monotonic()
        if any(one.holder is not None for one in (*fits.values(), *cells.values())):
            self._last_sign = now
        complete = not self._fits_left and not self._cells_left
        launcher = self._outlooks.launcher(complete, now - self._last_sign)

        def items(of: Mapping[str, Evidence]) -> dict[str, Item]:
            # By identity: a job names all of its cells, and to hash them for each of them would take for ever.
            outlooks: dict[int, Outlook] = {}
            found = {}
            for name, evidence in of.items():
                job = self._outlooks.job_of.get(name)
                outlook = outlooks.get(id(job))
                if outlook is None:
                    outlook = outlooks[id(job)] = self._outlooks.of(job, launcher)
                if evidence is not NOTHING:
                    found[name] = self._item(evidence, job, outlook)
                    continue
                known = self._untouched.get(id(job))
                if known is None or known[0] != outlook:
                    known = self._untouched[id(job)] = outlook, self._item(evidence, job, outlook)
                found[name] = known[1]
            return found

        new_fits, new_cells = items(fits), items(cells)
        if self._outlooks.read_history():
            new_fits, new_cells = items(fits), items(cells)
        self._block(new_fits, new_cells)
        for fit, item in new_fits.items():
            if item.state == "missing" and item.reason == "interrupted":
                for cell in self._cells_left.get(fit, ()):
                    if new_cells[cell].reason == "never begun":
                        new_cells[cell] = replace(new_cells[cell], reason="its training was interrupted")
        every_fit, every_cell = self._fits | new_fits, self._cells | new_cells
        eta_seconds, partial = eta(every_fit.values(), every_cell.values())
        launched = self._outlooks.launched
        start = self._outlooks.launch_time or self.plan.created
        going = launcher in ("live", "detached")
        return Look(
            {fit: every_fit[fit] for fit in self.plan.fits},
            {cell: every_cell[cell] for cell in self.plan.cells},
            launcher,
            launched.launcher if launched else None,
            _seconds_since(start) if going else None,
            eta_seconds if going else None,
            partial,
        )

    def _item(self, evidence: Evidence, job: Job | None, outlook: Outlook) -> Item:
        launched = self._outlooks.launched
        log = str(self.plan.folder / job.log) if job is not None and job.log else ""
        name = job.id if job is not None else ""
        status = evidence.status or {}
        holder = evidence.holder
        if holder is not None:
            mine = status.get("state") == "running" and (status.get("host"), status.get("pid")) == (
                holder.host,
                holder.pid,
            )
            return Item(
                "running",
                **evidence.progress,
                images_per_second=number(status.get("images_per_second")) if mine else None,
                eta_seconds=number(status.get("eta_seconds")) if mine else None,
                stage=str(status.get("stage", "")) if mine else "",
                host=holder.host,
                job=holder.slurm_job or name,
                log=log,
            )
        seen = Item("missing", **evidence.progress, host=str(status.get("host", "")), job=name, log=log)
        failed = replace(seen, state="failed", reason=evidence.failure) if evidence.failure else None
        if outlook.state in ("waiting", "running"):
            if launched is not None and launched.kind == "slurm":
                if outlook.state == "running" and failed is not None and evidence.failed_job == name:
                    return failed
                at_once = outlook.state == "running" and job is not None and job.kind == "fit"
                return replace(
                    seen, state="running" if at_once else "waiting", reason=outlook.reason, host=outlook.node
                )
            if failed is not None and evidence.failed_at >= self._outlooks.launch_time:
                return failed
            stopped = status.get("state") == "waiting" and str(status.get("time", "")) >= self._outlooks.launch_time
            return replace(seen, reason="interrupted") if stopped else replace(seen, state="waiting", host="")
        if outlook.state == "over":
            told = outlook.reason not in ("", "COMPLETED")
            same = evidence.failed_job == name or (evidence.failed_job is None and outlook.reason in ("", "FAILED"))
            if failed is not None and same:
                return failed
            where = f": see {log}" if log else ""
            word = outlook.reason + _complaint(log) if told else f"ended without a word{where}"
            return replace(seen, state="failed", reason=f"its SLURM job {name}{':' if told else ''} {word}")
        if failed is not None and not failed.reason.startswith("ValueError: not run: fit "):
            return failed
        launcher = launched.launcher if launched is not None and not launched.ended else None
        if launcher is not None and launcher.alive() is None:
            return replace(seen, reason=f"ask on {launcher.host}, where its launcher is or was")
        return replace(seen, reason="interrupted" if evidence.status else "never begun")

    def _block(self, fits: dict[str, Item], cells: dict[str, Item]) -> None:
        """Say of what waits for a failed fit that it is not run, and where to read why, in place."""
        bad: dict[str, dict[str, Any]] = {
            fit: {"state": "blocked", "reason": blocked(fit, item.reason), "log": item.log}
            for fit, item in fits.items()
            if item.state == "failed"
        }
        if not bad:
            return
        # A student of a student: as many rounds as there are generations.
        more = True
        while more:
            more = False
            for fit, item in fits.items():
                if fit not in bad and item.state != "running":
                    why = next((bad[other] for other in self.plan.needs[fit] if other in bad), None)
                    if why is not None:
                        bad[fit], more = why, True
                        fits[fit] = replace(item, **why)
        for fit, left in self._cells_left.items():
            for cell in left if fit in bad else ():
                if cells[cell].state != "running":
                    cells[cell] = replace(cells[cell], **bad[fit])


def _complaint(log: str) -> str:
    """What SLURM itself wrote last about a job into its log, such as that it took too much memory; in brackets."""
    with suppress(OSError), open(log, "rb") as stream:  # noqa: PTH123 - as all readers here
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL))
        said = _COMPLAINT.findall(stream.read().decode(errors="replace"))
        if said:
            return f" ({said[-1]})"
    return ""


def _done(record: Mapping[str, Any] | None, *times: str) -> Item | None:
    if record is None or record.get("status") != "done":
        return None
    metric = record.get("metric") or ""
    low, high = number(record.get(f"{metric}_low")), number(record.get(f"{metric}_high"))
    spent = [seconds for key in times if (seconds := number(record.get(key))) is not None]
    return Item(
        "done",
        step=record.get("steps") if "seconds" in times else None,
        steps=record.get("steps") if "seconds" in times else None,
        host=str(record.get("host") or ""),
        metric=metric,
        value=number(record.get(metric)) if metric else None,
        half=None if low is None or high is None else (high - low) / 2,
        seconds=sum(spent) if spent else None,
    )


def _seconds_since(moment: str) -> float | None:
    try:
        return max(0.0, time.time() - datetime.fromisoformat(moment).timestamp())
    except ValueError:
        return None
