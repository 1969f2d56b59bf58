"""The state of SLURM jobs, as its queue and its accounting have it; and their cancellation."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from diffsweep.sweep.slurm.commands import MANY, chunks, expanded, known_text, run, seconds, whole_jobs
from diffsweep.sweep.slurm.reasons import refusal


@dataclass(frozen=True)
class QueueEntry:
    """How SLURM says that a job stands.

    `state` in its words (PENDING, OUT_OF_MEMORY); `reason` why it waits, or ended; `node` where it runs or ran;
    `seconds` it has run since it last started; `exit_code` as sacct writes it, empty while it is in the queue.
    """

    state: str
    reason: str | None
    node: str | None
    seconds: float
    exit_code: str = ""


def queue(ids_or_job_name: Iterable[str] | str) -> dict[str, QueueEntry] | None:
    """What SLURM's queue holds of these jobs, or of this user's jobs with this name: id -> entry, arrays expanded.

    A job that has ended is not in the queue. None if the queue cannot be asked just now.
    """
    if isinstance(ids_or_job_name, str):
        wanted, which = None, [f"--name={ids_or_job_name}", f"--user={os.getuid()}"]
    else:
        wanted = set(ids_or_job_name)
        jobs = whole_jobs(wanted)
        if not jobs:
            return {}
        which = [f"--jobs={','.join(jobs)}"] if len(jobs) <= MANY else []
    done = run(["squeue", "--noheader", "--array", "--format=%i|%T|%M|%N|%r", *which])
    if done is None:
        return None
    if done.returncode:
        # Asked for one job only, SLURM calls it an error that it has forgotten it.
        return {} if "Invalid job id" in done.stderr else None
    entries = {}
    for line in done.stdout.splitlines():
        name, state, elapsed, node, reason = (part.strip() for part in line.split("|", 4))
        if wanted is None or name in wanted:
            entries[name] = QueueEntry(state, known_text(reason), known_text(node), seconds(elapsed))
    return entries


def history(ids: Iterable[str]) -> dict[str, QueueEntry] | None:
    """What SLURM's accounting knows of these jobs, ended ones included; it trails the queue by seconds.

    A task that was cancelled before it started may have no record. None where there is no accounting, or it gives no
    answer.
    """
    wanted = set(ids)
    found_entries: dict[str, QueueEntry] = {}
    for some in chunks(whole_jobs(wanted)):
        columns = "--format=JobID,State,ElapsedRaw,ExitCode,NodeList,Reason"
        done = run(["sacct", "--noheader", "--parsable2", "--allocations", columns, f"--jobs={','.join(some)}"])
        if done is None or done.returncode:
            return None
        for line in done.stdout.splitlines():
            name, state, elapsed, exit_code, node, reason = (part.strip() for part in line.split("|", 5))
            # CANCELLED comes with who did it.
            entry = QueueEntry(
                state.partition(" ")[0], known_text(reason), known_text(node), float(elapsed or 0), exit_code
            )
            found_entries |= dict.fromkeys(expanded(name), entry)
    # Tasks that never started may share the record of their array.
    found = {name: found_entries.get(name) or found_entries.get(name.partition("_")[0]) for name in wanted}
    return {name: entry for name, entry in found.items() if entry is not None}


def cancel(ids: Iterable[str]) -> None:
    """Cancel these jobs; those that have ended already stay as they are. Raises ValueError if SLURM cannot be asked."""
    arrays: dict[str, list[str]] = {}
    for name in ids:
        base, _, task = name.partition("_")
        arrays.setdefault(base, []).append(task)
    names = [f"{base}_[{','.join(tasks)}]" if all(tasks) else base for base, tasks in arrays.items()]
    for some in chunks(names):
        done = run(["scancel", "--quiet", *some])
        if done is None:
            raise ValueError("scancel gives no answer, so the jobs may go on: try again later")
        if done.returncode and "Invalid job id" not in done.stderr:
            raise ValueError(f"SLURM refuses to cancel: {refusal(done.stderr)}")
