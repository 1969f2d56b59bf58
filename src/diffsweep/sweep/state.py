"""What goes on in a sweep, derived at every look from what its processes left in files and from SLURM's queue.

Nobody keeps this state: it cannot be out of date, and a killed process needs no cleaning up. Work is done when its
record says so, running when a living process holds its lease, waiting when a living launcher or SLURM's queue still
has its job; else it failed, was interrupted, or was never begun. What is done is remembered, so that looking again is
cheap.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from diffsweep.sweep.jobs import Job, Launched
from diffsweep.sweep.lease import Lease
from diffsweep.sweep.plan import Plan
from diffsweep.sweep.process import Process
from diffsweep.sweep.reading import read_fast, without_collector

State = Literal["done", "running", "waiting", "failed", "blocked", "missing"]
Launcher = Literal["live", "detached", "elsewhere", "interrupted", "finished", "planned"]

_ENDED = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    ]
)
_AT_WORK = frozenset(["COMPLETING", "RESIZING", "RUNNING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED"])
_COMPLAINT = re.compile(r"^slurmstepd-\S+: error: (?!\*\*\*)(.+)$", re.MULTILINE)
_TAIL = 2**14
# A disk that stamps two changes alike does so within this many seconds.
_SETTLED = 2.0


class Entry(Protocol):
    """One job as SLURM tells it: `state` in its words (PENDING, OUT_OF_MEMORY), why it waits, where it runs."""

    @property
    def state(self) -> str: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def node(self) -> str | None: ...


Ask = Callable[[Sequence[str]], Mapping[str, Entry] | None]


@dataclass(frozen=True, slots=True)
class Item:
    """How one fit or cell stands.

    "waiting": in a queue or behind its fit; "blocked": not run, as its fit failed; "missing": nobody is at it, for it
    was interrupted or never begun. `half` is half the width of the interval of `value`. Empty or None is what is not
    known or does not apply.
    """

    state: State
    step: int | None = None
    steps: int | None = None
    images_per_second: float | None = None
    eta_seconds: float | None = None
    loss: float | None = None
    stage: str = ""
    host: str = ""
    job: str = ""
    reason: str = ""
    log: str = ""
    metric: str = ""
    value: float | None = None
    half: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Look:
    """A sweep at one moment: its fits and cells by signature, in the order of the plan.

    `launcher`: "live"; "detached" (its SLURM jobs go on alone); "elsewhere" (its launcher, `process`, is on another
    host and nothing shows whether it lives); "interrupted"; "finished" (all jobs are over, some may have failed);
    "planned" (not launched so far). `eta_seconds` comes from the speeds known so far; with `eta_partial` it covers
    the trainings only, as no evaluation has been timed yet.
    """

    fits: Mapping[str, Item]
    cells: Mapping[str, Item]
    launcher: Launcher
    process: Process | None = None
    elapsed_seconds: float | None = None
    eta_seconds: float | None = None
    eta_partial: bool = False

    @cached_property
    def counts(self) -> Counter[str]:
        """How many cells are in each state."""
        return Counter(item.state for item in self.cells.values())

    @cached_property
    def fit_counts(self) -> Counter[str]:
        """How many fits are in each state."""
        return Counter(item.state for item in self.fits.values())

    @property
    def over(self) -> bool:
        """Whether nobody is at work on this sweep any more, as far as can be told."""
        return self.launcher in ("finished", "interrupted") and not self.counts["running"] + self.fit_counts["running"]


@dataclass(frozen=True)
class _Evidence:
    """What lies in the folder of a fit or cell that is not done."""

    holder: Process | None = None
    status: Mapping[str, Any] | None = None
    failure: str = ""
    failed_at: str = ""
    failed_job: str | None = None

    @property
    def progress(self) -> dict[str, Any]:
        status = self.status or {}
        return {key: _number(status.get(key)) for key in ("step", "steps", "loss")}


@dataclass(frozen=True)
class _Outlook:
    """What can still be hoped for from a job."""

    state: Literal["waiting", "running", "over", "gone"]
    reason: str = ""
    node: str = ""


_NOTHING = _Evidence()
_WAITING, _GONE = _Outlook("waiting"), _Outlook("gone")


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
        self._ask_queue = queue
        self._ask_history = history
        self._every = every
        self._finished = {} if finished is None else finished
        self._root = os.path.join(plan.runs, "fits")  # noqa: PTH118 - strings: a Path for each of 10,000 cells costs a second
        self._fits: dict[str, Item] = {}
        self._cells: dict[str, Item] = {}
        self._fits_left = dict.fromkeys(plan.fits)
        self._cells_left = {fit: list(cells) for fit, cells in plan.fits.items()}
        self._begun: Set[str] = frozenset()
        self._launched: Launched | None = None
        self._launched_stamp: object = None
        self._job_of: dict[str, Job] = {}
        self._untouched: dict[int, tuple[_Outlook, Item]] = {}
        self._queue: Mapping[str, Entry] | None = None
        self._asked = self._asked_history = -float("inf")
        self._in_queue: set[str] = set()
        self._left_queue: dict[str, float] = {}
        self._words: dict[str, str] = {}
        self._wanted: set[str] = set()
        self._known: dict[str, tuple[int, float, float, _Evidence]] = {}
        self._signs: dict[str, tuple[int, float]] = {}
        self._last_sign = -float("inf")

    def look(self) -> Look:
        """How everything stands now. Unreadable files count as absent."""
        with without_collector():
            self._read_jobs()
            self._collect()
            if (self._fits_left or self._cells_left) and self._read_queue():
                # A job may have left its result and then the queue since.
                self._collect()
            fits, cells = self._evidence_of_all()
            return self._derive(fits, cells)

    # ---- what is done

    def _collect(self) -> None:
        """Remember what has become done since the last look."""
        left = self._fits_left.keys() | self._cells_left.keys()
        # One listing, not thousands of questions for what is not there.
        self._begun = left & _names(self._root) if len(left) > 20 else left
        for fit in list(self._fits_left):
            path = f"{self._root}/{fit}"
            item = self._finished.get(path)
            if item is None and fit in self._begun:
                item = _done(_read(f"{path}/done.json"), "seconds")
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
                    there = _names(folder) if there is None else there
                    if cell in there:
                        item = _done(_read(f"{path}/result.json"), "sample_seconds", "evaluate_seconds")
                if item is None:
                    still.append(cell)
                else:
                    self._finished[path] = self._cells[cell] = item
            if still:
                self._cells_left[fit] = still
            else:
                del self._cells_left[fit]
                # Its weights were cleared away after all that they were for.
                if fit in self._fits_left and not _names(f"{self._root}/{fit}") & {"status.json", "error.txt"}:
                    self._fits[fit] = Item("done")
                    del self._fits_left[fit]

    # ---- who is at it

    def _read_jobs(self) -> None:
        path = self.plan.folder / "jobs.json"
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        except OSError:
            stamp = None
        if stamp == self._launched_stamp:
            return
        try:
            self._launched = Launched.read(self.plan.folder)
        except (OSError, ValueError, KeyError, TypeError):
            self._launched = None
        self._launched_stamp = stamp
        self._asked = -float("inf")
        self._job_of, self._untouched = {}, {}
        for job in self._launched.jobs if self._launched else ():
            if job.kind == "fit":
                self._job_of[job.fit] = job
            elif job.kind == "cells":
                self._job_of |= dict.fromkeys(job.cells, job)

    def _read_queue(self) -> bool:
        """Ask for the jobs of what is not done, if it is time; whether it was."""
        launched, now = self._launched, time.monotonic()
        if launched is None or launched.kind != "slurm" or launched.ended or now - self._asked < self._every:
            return False
        ids = [job.id for job in launched.jobs if job.id]
        if not ids:
            return False
        if self._ask_queue is None:
            from diffsweep.sweep import slurm

            self._ask_queue, self._ask_history = slurm.queue, self._ask_history or slurm.history
        self._asked = now
        self._queue = self._ask_queue(ids)
        if self._queue is not None:
            present = {name for name, entry in self._queue.items() if _word(entry) not in _ENDED}
            left = {name: self._left_queue.get(name, now) for name in self._in_queue - present}
            self._in_queue |= present
            self._left_queue = left
        return True

    def _read_history(self) -> bool:
        """Ask how jobs have ended, if somebody wants to know and it is time; whether there is news."""
        now = time.monotonic()
        wanted = sorted(self._wanted - set(self._words))
        if not wanted or now - self._asked_history < self._every:
            return False
        if self._ask_history is None:
            from diffsweep.sweep import slurm

            self._ask_history = slurm.history
        self._asked_history = now
        told = {name: _word(entry) for name, entry in (self._ask_history(wanted) or {}).items()}
        # Accounting lags behind: what still runs there has not been written down yet.
        told = {name: word for name, word in told.items() if word in _ENDED}
        self._words |= told
        return bool(told)

    def _evidence_of_all(self) -> tuple[dict[str, _Evidence], dict[str, _Evidence]]:
        begun = self._begun
        fits = {fit: self._evidence(f"{self._root}/{fit}") if fit in begun else _NOTHING for fit in self._fits_left}
        cells: dict[str, _Evidence] = {}
        for fit, left in self._cells_left.items():
            there = _names(f"{self._root}/{fit}/cells") if fit in begun else ()
            for cell in left:
                cells[cell] = self._evidence(f"{self._root}/{fit}/cells/{cell}") if cell in there else _NOTHING
        return fits, cells

    def _evidence(self, folder: str) -> _Evidence:
        now = time.monotonic()
        try:
            stamp = os.stat(folder).st_mtime_ns  # noqa: PTH116 - see __init__
        except OSError:
            return _NOTHING
        known = self._known.get(folder)
        since = known[1] if known is not None and known[0] == stamp else now
        # Every new state of a record is a new file in its folder; signs of life are not.
        if known is not None and known[0] == stamp and known[2] - since > _SETTLED and known[3].holder is None:
            return known[3]
        found = self._read_evidence(folder)
        self._known[folder] = (stamp, since, now, found)
        return found

    def _read_evidence(self, folder: str) -> _Evidence:
        names = _names(folder)
        status = _read(f"{folder}/status.json") if "status.json" in names else None
        holder = self._holder(folder, [name for name in names if name.startswith("lease-")])
        failure = failed_at = ""
        failed_job = None
        error = Path(folder, "error.txt")
        if status is not None and status.get("state") == "failed":
            failure = str(status.get("reason") or "") or _first_line(error) or "no reason was recorded"
            failed_at, failed_job = str(status.get("time", "")), status.get("slurm_job")
        elif "error.txt" in names:
            written = _stamp(error)
            # One from before the last word of its process is about an earlier attempt.
            if status is None or written >= _stamp(Path(folder, "status.json")):
                failure = _first_line(error)
                failed_at = datetime.fromtimestamp(written / 1e9, timezone.utc).isoformat(timespec="seconds")
        return _Evidence(holder, status, failure, failed_at, failed_job)

    def _holder(self, folder: str, leases: Sequence[str]) -> Process | None:
        """Who holds the record's lease and, as far as can be told, lives."""
        lease = Lease(folder)
        holder = lease.holder() if leases else None
        if holder is None or holder.alive():
            return holder
        if self._queue is not None and self._launched is not None and holder.slurm_job:
            ours = any(job.id == holder.slurm_job for job in self._launched.jobs)
            if ours:
                entry = self._queue.get(holder.slurm_job)
                return holder if entry is not None and _word(entry) in _AT_WORK else None
        stamp = _stamp(Path(folder, max(leases)))
        now = time.monotonic()
        seen = self._signs.get(folder)
        if seen is None:
            # The clocks of two hosts, for want of better: a second look knows whether the stamp moves.
            age = abs(time.time() - stamp / 1e9)
            self._signs[folder] = (stamp, now - age)
        elif seen[0] != stamp:
            self._signs[folder] = (stamp, now)
        return holder if now - self._signs[folder][1] < lease.patience else None

    # ---- what follows

    def _derive(self, fits: Mapping[str, _Evidence], cells: Mapping[str, _Evidence]) -> Look:
        now = time.monotonic()
        if any(one.holder is not None for one in (*fits.values(), *cells.values())):
            self._last_sign = now
        launcher = self._launcher(now)
        self._wanted.clear()

        def items(of: Mapping[str, _Evidence]) -> dict[str, Item]:
            # By identity: a job names all of its cells, and to hash them for each of them would take for ever.
            outlooks: dict[int, _Outlook] = {}
            found = {}
            for name, evidence in of.items():
                job = self._job_of.get(name)
                outlook = outlooks.get(id(job))
                if outlook is None:
                    outlook = outlooks[id(job)] = self._outlook(job, launcher, now)
                if evidence is not _NOTHING:
                    found[name] = self._item(evidence, job, outlook)
                    continue
                known = self._untouched.get(id(job))
                if known is None or known[0] != outlook:
                    known = self._untouched[id(job)] = outlook, self._item(evidence, job, outlook)
                found[name] = known[1]
            return found

        new_fits, new_cells = items(fits), items(cells)
        if self._read_history():
            new_fits, new_cells = items(fits), items(cells)
        self._block(new_fits, new_cells)
        for fit, item in new_fits.items():
            if item.state == "missing" and item.reason == "interrupted":
                for cell in self._cells_left.get(fit, ()):
                    if new_cells[cell].reason == "never begun":
                        new_cells[cell] = replace(new_cells[cell], reason="its training was interrupted")
        every_fit, every_cell = self._fits | new_fits, self._cells | new_cells
        eta, partial = _eta(every_fit.values(), every_cell.values())
        start = self._launched.launcher.time if self._launched and self._launched.launcher else self.plan.created
        going = launcher in ("live", "detached")
        return Look(
            {fit: every_fit[fit] for fit in self.plan.fits},
            {cell: every_cell[cell] for cell in self.plan.cells},
            launcher,
            self._launched.launcher if self._launched else None,
            _seconds_since(start) if going else None,
            eta if going else None,
            partial,
        )

    def _launcher(self, now: float) -> Launcher:
        launched = self._launched
        complete = not self._fits_left and not self._cells_left
        if launched is None:
            return "finished" if complete else "planned"
        if launched.ended:
            return "finished"
        alive = launched.launcher.alive() if launched.launcher is not None else False
        if alive:
            return "live"
        if launched.kind == "slurm":
            entries = (self._queue or {}).values()
            queued = self._queue is None or any(_word(entry) not in _ENDED for entry in entries)
            if not complete and (queued or any(now - left < self._every for left in self._left_queue.values())):
                return "detached"
        if complete:
            return "finished"
        if alive is None:
            return "live" if now - self._last_sign < Lease.patience else "elsewhere"
        return "interrupted"

    def _outlook(self, job: Job | None, launcher: Launcher, now: float) -> _Outlook:
        launched = self._launched
        if job is None or launched is None:
            return _GONE
        if launched.kind == "local" or not job.id:
            return _WAITING if launcher == "live" else _GONE
        entry = None
        if not launched.ended:
            if self._queue is None:
                return _Outlook("waiting", "SLURM cannot be asked from here")
            entry = self._queue.get(job.id)
            word = _word(entry) if entry else ""
            reason = entry.reason or "" if entry else ""
            if word in _AT_WORK:
                return _Outlook("running", node=entry.node or "" if entry else "")
            if entry is not None and word not in _ENDED:
                return _Outlook("waiting", reason if reason != "None" else "")
            # Its last files may need a moment to be seen from here.
            if now - self._left_queue.get(job.id, -float("inf")) < self._every:
                return _Outlook("waiting", "its job has just ended")
        word = _word(entry) if entry else self._words.get(job.id, "")
        if not word:
            self._wanted.add(job.id)
        return _Outlook("over", word)

    def _item(self, evidence: _Evidence, job: Job | None, outlook: _Outlook) -> Item:
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
                images_per_second=_number(status.get("images_per_second")) if mine else None,
                eta_seconds=_number(status.get("eta_seconds")) if mine else None,
                stage=str(status.get("stage", "")) if mine else "",
                host=holder.host,
                job=holder.slurm_job or name,
                log=log,
            )
        seen = Item("missing", **evidence.progress, host=str(status.get("host", "")), job=name, log=log)
        failed = replace(seen, state="failed", reason=evidence.failure) if evidence.failure else None
        if outlook.state in ("waiting", "running"):
            slurm = self._launched is not None and self._launched.kind == "slurm"
            if slurm:
                if outlook.state == "running" and failed is not None and evidence.failed_job == name:
                    return failed
                at_once = outlook.state == "running" and job is not None and job.kind == "fit"
                return replace(
                    seen, state="running" if at_once else "waiting", reason=outlook.reason, host=outlook.node
                )
            if failed is not None and evidence.failed_at >= self._launch_time():
                return failed
            stopped = status.get("state") == "waiting" and str(status.get("time", "")) >= self._launch_time()
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
        if self._launched is not None and self._launched.launcher is not None and not self._launched.ended:
            launcher = self._launched.launcher
            if launcher.alive() is None:
                return replace(seen, reason=f"ask on {launcher.host}, where its launcher is or was")
        return replace(seen, reason="interrupted" if evidence.status else "never begun")

    def _launch_time(self) -> str:
        launcher = self._launched.launcher if self._launched else None
        return launcher.time if launcher is not None else ""

    def _block(self, fits: dict[str, Item], cells: dict[str, Item]) -> None:
        """Say of what waits for a failed fit that it is not run, and where to read why, in place."""
        bad: dict[str, dict[str, Any]] = {
            fit: {"state": "blocked", "reason": f"not run: fit {fit} failed: {item.reason}", "log": item.log}
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


def blocked(fit: str, reason: str) -> str:
    """What is said of a cell that was not run, as `fit` failed for that reason."""
    return f"not run: fit {fit} failed: {reason}"


def _eta(fits: Iterable[Item], cells: Iterable[Item]) -> tuple[float | None, bool]:
    """Seconds until all is done if as much runs at once as now, and whether evaluations are left out of that."""
    fits, cells = list(fits), list(cells)
    long, fit_left = _left(fits)
    _, cell_left = _left(cells)
    partial = cell_left is None
    at_once = sum(item.state == "running" for item in (*fits, *cells))
    if fit_left is None or not at_once or (partial and not fit_left):
        return None, False
    return max(long, (fit_left + (cell_left or 0.0)) / at_once), partial


def _left(items: Sequence[Item]) -> tuple[float, float | None]:
    """The longest time that a running one still needs, and the time of all one after another if that is known."""
    took = [item.seconds for item in items if item.seconds is not None]
    running = [item for item in items if item.state == "running"]
    known = [item.eta_seconds for item in running if item.eta_seconds is not None]
    if not took:
        took = [
            item.eta_seconds * item.steps / (item.steps - item.step)
            for item in running
            if item.eta_seconds is not None and item.steps and item.step is not None and item.step < item.steps
        ]
    unknown = sum(item.state == "waiting" for item in items) + len(running) - len(known)
    if not unknown:
        return max(known, default=0.0), sum(known)
    return max(known, default=0.0), sum(known) + unknown * sum(took) / len(took) if took else None


def _done(record: Mapping[str, Any] | None, *times: str) -> Item | None:
    if record is None or record.get("status") != "done":
        return None
    metric = record.get("metric") or ""
    low, high = _number(record.get(f"{metric}_low")), _number(record.get(f"{metric}_high"))
    spent = [seconds for key in times if (seconds := _number(record.get(key))) is not None]
    return Item(
        "done",
        step=record.get("steps") if "seconds" in times else None,
        steps=record.get("steps") if "seconds" in times else None,
        host=str(record.get("host") or ""),
        metric=metric,
        value=_number(record.get(metric)) if metric else None,
        half=None if low is None or high is None else (high - low) / 2,
        seconds=sum(spent) if spent else None,
    )


def _word(entry: Entry) -> str:
    # `CANCELLED by 1000`, `CANCELLED+`.
    return entry.state.split()[0].rstrip("+") if entry.state.strip() else ""


def _number(value: object) -> Any:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _seconds_since(moment: str) -> float | None:
    try:
        return max(0.0, time.time() - datetime.fromisoformat(moment).timestamp())
    except ValueError:
        return None


def _names(folder: str) -> set[str]:
    """What lies in a folder; nothing if there is none."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except OSError:
        return set()


def _read(path: str) -> dict[str, Any] | None:
    """The JSON object in a file; None if there is none that can be read."""
    try:
        record = json.loads(read_fast(path)[0])
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _first_line(path: Path) -> str:
    try:
        with path.open(errors="replace") as lines:
            return lines.readline().strip()
    except OSError:
        return ""


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
