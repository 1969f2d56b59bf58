"""SLURM through submitit: callables become jobs in few submissions, and one question tells how all of them stand.

No job submits another, and none is left behind: a submission that fails halfway is taken back, a job whose dependency
can no longer be satisfied is cancelled by SLURM, and a job that raises is FAILED to SLURM.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

_TIMEOUT = 60.0
# Arguments of one command; a line of 128 KiB is what Linux takes.
_MANY = 5000
# What `submit` itself says to sbatch.
_OURS = ("array", "dependency", "error", "job-name", "kill-on-invalid-dep", "no-requeue", "open-mode", "output")
_OURS += ("parsable", "requeue", "signal", "wait", "wrap")
_FIELD_OF = {"mem": "memory", "cpus-per-task": "cpus", "ntasks-per-node": "tasks_per_node"}
_TIME = re.compile(r"\d+|\d+:\d\d(:\d\d)?|\d+-\d+(:\d\d(:\d\d)?)?|UNLIMITED|INFINITE")
_MEMORY = re.compile(r"(\d+)([KMGT])?B?", re.IGNORECASE)


@dataclass(frozen=True)
class Resources:
    """What one kind of job asks for; None leaves it to the site's default. Raises ValueError for a bad value.

    `time`: minutes, or SLURM's `D-HH:MM:SS`; `memory` per node, as 16GB; `cpus` per task; `setup`: lines of shell that
    run before the tasks start; `extra`: any other option of sbatch, by its long name, True for one without a value.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gres: str | None = None
    time: int | str | None = None
    memory: str | None = None
    cpus: int | None = None
    constraint: str | None = None
    exclude: str | None = None
    setup: tuple[str, ...] = ()
    extra: Mapping[str, str | int | bool] = field(default_factory=dict)
    nodes: int = 1
    tasks_per_node: int = 1

    def __post_init__(self) -> None:
        for name in ("partition", "account", "qos", "gres", "constraint", "exclude"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value or "\n" in value):
                raise ValueError(f"{name}={value!r}: give text, or null for the site's default")
        for name in ("cpus", "nodes", "tasks_per_node"):
            value = getattr(self, name)
            if not _is_count(value) and not (name == "cpus" and value is None):
                raise ValueError(f"{name}={value!r}: give a whole number of 1 or more")
        if not (
            self.time is None or _is_count(self.time) or (isinstance(self.time, str) and _TIME.fullmatch(self.time))
        ):
            raise ValueError(f"time={self.time!r}: give minutes, or 'D-HH:MM:SS' in quotes, as time='1-12:00:00'")
        if self.memory is not None and not (isinstance(self.memory, str) and _MEMORY.fullmatch(self.memory)):
            raise ValueError(f"memory={self.memory!r}: give a whole number with its unit, as 16GB or 900MB")
        if not (isinstance(self.setup, tuple) and all(isinstance(line, str) for line in self.setup)):
            raise ValueError(f"setup={self.setup!r}: give a list of shell lines")
        for name, value in self.extra.items():
            _check_extra(name, value)

    @classmethod
    def of(cls, mapping: Mapping[str, Any]) -> Resources:
        """The resources that a config says. Raises ValueError for an unknown key or a bad value."""
        valid = [one.name for one in fields(cls)]
        for key in mapping:
            if key not in valid:
                raise ValueError(f"resources have no {key!r}: choose from {', '.join(valid)}; others go into extra")
        plain: dict[str, Any] = dict(mapping)
        for name, empty in {"setup": (), "extra": {}, "nodes": 1, "tasks_per_node": 1}.items():
            if plain.get(name) is None:
                plain[name] = empty
        if not isinstance(plain["extra"], Mapping):
            raise ValueError(
                f"extra={plain['extra']!r}: give options of sbatch and their values, as {{reservation: big}}"
            )
        lines = plain["setup"]
        return cls(
            **{**plain, "setup": (lines,) if isinstance(lines, str) else tuple(lines), "extra": dict(plain["extra"])}
        )


@dataclass(frozen=True)
class Work:
    """Something to run as a job.

    `call` is pickled; a `checkpoint()` method of it is submitit's: called when the time is nearly over, it returns what
    the requeued job runs. `name` is for messages. `after`: places in the same list of what must have ended well before.
    """

    call: Callable[[], object]
    name: str
    resources: Resources = field(default_factory=Resources)
    after: tuple[int, ...] = ()


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


def available() -> bool:
    """Whether jobs can be submitted from this machine."""
    return shutil.which("sbatch") is not None and shutil.which("srun") is not None


def submit(
    works: Sequence[Work],
    folder: Path,
    *,
    throttle: int | None,
    environment: Mapping[str, str],
    python: str | None = None,
    signal_seconds: int = 120,
    requeues: int = 5,
    job_name: str,
    last: Work | None = None,
    on_submitted: Callable[[dict[int, str]], object],
) -> dict[int, str]:
    """Submit `works`: one array for each class of resources, and one job for each work that comes after others.

    A work whose predecessor fails is cancelled by SLURM. `last` starts when all the others have ended, however; its
    place is `len(works)`. Logs, pickles and scripts go to `folder`, which the nodes must see; the log of a job is
    `<id>_0_log.out`.

    `throttle`: at most so many jobs of an array at once; `environment` is exported to the jobs after their setup;
    `python`: the interpreter (default: this one); `signal_seconds` before the time limit the job is warned (SIGUSR2)
    and, if it has a checkpoint, requeued, at most `requeues` times. `on_submitted` hears after every answer of SLURM
    which places have which ids by now. Returns the ids, as squeue writes them (812, or 812_3 in an array).

    Raises ValueError, in one line, if SLURM refuses; whatever was submitted is then cancelled again.
    """
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    if not available():
        raise ValueError("there is no SLURM here: sbatch and srun are not found")
    ids: dict[int, str] = {}
    everything = [*works, *([last] if last is not None else [])]
    exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]

    def send(places: Sequence[int], dependency: str | None = None) -> None:
        first = everything[places[0]]
        executor = SlurmExecutor(folder, max_num_timeout=requeues, python=shlex.quote(python or sys.executable))
        executor.update_parameters(
            **_parameters(first.resources, exports),
            job_name=job_name,
            signal_delay_s=signal_seconds,
            dependency=dependency,
            array_parallelism=throttle or len(places),
            wckey=None,
            stderr_to_stdout=True,
        )
        try:
            # submitit prints SLURM's complaint besides raising it.
            with _outside_of_jobs(), redirect_stderr(io.StringIO()):
                jobs = executor.submit_array([_guarded(everything[place]) for place in places])
        except (FailedJobError, FailedSubmissionError) as error:
            raise ValueError(f"SLURM refuses {first.name}: {_reason(str(error))}") from error
        ids.update({place: job.job_id for place, job in zip(places, jobs, strict=True)})
        on_submitted(dict(ids))

    try:
        for chunk in _arrays(works, _max_array_size()):
            send(chunk)
        left = [place for place, work in enumerate(works) if work.after]
        while left:
            ready = [place for place in left if all(other in ids for other in works[place].after)]
            assert ready, f"works {left} wait for each other"
            for place in ready:
                send([place], "afterok:" + ":".join(ids[other] for other in works[place].after))
            left = [place for place in left if place not in ids]
        if last is not None:
            # An array's own id stands for all its tasks.
            ended = ":".join(dict.fromkeys(name.partition("_")[0] for name in ids.values()))
            send([len(works)], f"afterany:{ended}" if ended else None)
    except BaseException as error:
        try:
            cancel(ids.values())
        except ValueError as another:
            raise ValueError(f"{error}; and of what was submitted, {', '.join(ids.values())}: {another}") from error
        raise
    return ids


def queue(ids_or_job_name: Iterable[str] | str) -> dict[str, QueueEntry] | None:
    """What SLURM's queue holds of these jobs, or of this user's jobs with this name: id -> entry, arrays expanded.

    A job that has ended is not in the queue. None if the queue cannot be asked just now.
    """
    if isinstance(ids_or_job_name, str):
        wanted, which = None, [f"--name={ids_or_job_name}", f"--user={os.getuid()}"]
    else:
        wanted = set(ids_or_job_name)
        jobs = _whole(wanted)
        if not jobs:
            return {}
        which = [f"--jobs={','.join(jobs)}"] if len(jobs) <= _MANY else []
    done = _run(["squeue", "--noheader", "--array", "--format=%i|%T|%M|%N|%r", *which])
    if done is None:
        return None
    if done.returncode:
        # Asked for one job only, SLURM calls it an error that it has forgotten it.
        return {} if "Invalid job id" in done.stderr else None
    entries = {}
    for line in done.stdout.splitlines():
        name, state, elapsed, node, reason = (part.strip() for part in line.split("|", 4))
        if wanted is None or name in wanted:
            entries[name] = QueueEntry(state, _said(reason), _said(node), _seconds(elapsed))
    return entries


def history(ids: Iterable[str]) -> dict[str, QueueEntry] | None:
    """What SLURM's accounting knows of these jobs, ended ones included; it trails the queue by seconds.

    A task that was cancelled before it started may have no record. None where there is no accounting, or it gives no
    answer.
    """
    wanted = set(ids)
    told: dict[str, QueueEntry] = {}
    for some in _chunks(_whole(wanted)):
        columns = "--format=JobID,State,ElapsedRaw,ExitCode,NodeList,Reason"
        done = _run(["sacct", "--noheader", "--parsable2", "--allocations", columns, f"--jobs={','.join(some)}"])
        if done is None or done.returncode:
            return None
        for line in done.stdout.splitlines():
            name, state, elapsed, exit_code, node, reason = (part.strip() for part in line.split("|", 5))
            # CANCELLED comes with who did it.
            entry = QueueEntry(state.partition(" ")[0], _said(reason), _said(node), float(elapsed or 0), exit_code)
            told |= dict.fromkeys(_expanded(name), entry)
    # Tasks that never started may share the record of their array.
    found = {name: told.get(name) or told.get(name.partition("_")[0]) for name in wanted}
    return {name: entry for name, entry in found.items() if entry is not None}


def cancel(ids: Iterable[str]) -> None:
    """Cancel these jobs; those that have ended already stay as they are. Raises ValueError if SLURM cannot be told."""
    arrays: dict[str, list[str]] = {}
    for name in ids:
        base, _, task = name.partition("_")
        arrays.setdefault(base, []).append(task)
    names = [f"{base}_[{','.join(tasks)}]" if all(tasks) else base for base, tasks in arrays.items()]
    for some in _chunks(names):
        done = _run(["scancel", "--quiet", *some])
        if done is None:
            raise ValueError("scancel gives no answer, so the jobs may go on: try again later")
        if done.returncode and "Invalid job id" not in done.stderr:
            raise ValueError(f"SLURM refuses to cancel: {_reason(done.stderr)}")


@dataclass(frozen=True)
class _Unlimited:
    """A call whose time limit the site decides: submitit does not know it, and its handler would fail for that."""

    call: Callable[[], object]

    def __call__(self) -> object:
        submission = getattr(getattr(signal.getsignal(signal.SIGUSR2), "__self__", None), "_delayed", None)
        if submission is not None:
            # With 0 minutes every warning counts as a time-out.
            submission.set_timeout(0, submission._timeout_countdown)
        return self.call()

    def __getattr__(self, name: str) -> Any:
        # submitit asks whether there is one.
        if name == "checkpoint":
            return self.call.checkpoint  # type: ignore[attr-defined]
        raise AttributeError(name)


def _guarded(work: Work) -> Callable[[], object]:
    return _Unlimited(work.call) if _minutes(work.resources.time) is None else work.call


def _parameters(resources: Resources, exports: Sequence[str]) -> dict[str, Any]:
    """`resources` in submitit's words."""
    extra: dict[str, Any] = {
        name.replace("_", "-"): value for name, value in resources.extra.items() if value is not False
    }
    extra |= {"requeue": True, "kill-on-invalid-dep": "yes"}
    # One task that dies must not leave the others waiting for it.
    srun = ["--kill-on-bad-exit=1"]
    if resources.cpus is not None:
        # Since SLURM 22.05 srun does not take it from sbatch.
        srun.append(f"--cpus-per-task={resources.cpus}")
    if resources.time is not None:
        extra["time"] = resources.time
    names = ("partition", "account", "qos", "gres", "constraint", "exclude", "nodes")
    return {name: getattr(resources, name) for name in names} | {
        "time": _minutes(resources.time),
        "mem": resources.memory,
        "cpus_per_task": resources.cpus,
        "ntasks_per_node": resources.tasks_per_node,
        "setup": [*resources.setup, *exports],
        "srun_args": srun,
        "additional_parameters": extra,
    }


def _arrays(works: Sequence[Work], size: int) -> Iterator[list[int]]:
    """Places of the works that wait for nothing, those of equal resources together, at most `size` in one."""
    classes: list[tuple[Resources, list[int]]] = []
    for place, work in enumerate(works):
        if work.after:
            continue
        for resources, places in classes:
            if resources == work.resources:
                places.append(place)
                break
        else:
            classes.append((work.resources, [place]))
    for _, places in classes:
        yield from _chunks(places, size)


def _max_array_size() -> int:
    done = _run(["scontrol", "show", "config"])
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout if done else "", re.MULTILINE)
    # 0 says that there are no arrays; 1001 is SLURM's own default.
    return max(1, int(found[1])) if found else 1001


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
    """The command's end; None if there is no such command, or no end."""
    # The user's own defaults for the output of squeue and sacct would hide jobs from us.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SACCT_"))}
    try:
        return subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """In the block, what submits is no job itself: sbatch would take the variables of one for options."""
    from submitit.helpers import clean_env

    kept = {name: value for name, value in os.environ.items() if name == "SLURM_CONF" or name.startswith("SBATCH_")}
    with clean_env():
        os.environ.update(kept)
        yield


def _whole(ids: Iterable[str]) -> list[str]:
    """The jobs and arrays that these ids are of."""
    return sorted({name.partition("_")[0] for name in ids})


def _expanded(name: str) -> list[str]:
    """All ids of `812_[1-3,7%2]`, as SLURM writes tasks that never started; `812` and `812_3` are themselves."""
    base, bracket, tasks = name.rstrip("]").partition("_[")
    if not bracket:
        return [name]
    found = []
    for part in tasks.partition("%")[0].split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            found += [f"{base}_{task}" for task in range(int(first), int(last or first) + 1)]
    return found


def _chunks(items: Sequence[Any], size: int = _MANY) -> Iterator[list[Any]]:
    for first in range(0, len(items), size):
        yield list(items[first : first + size])


def _said(text: str) -> str | None:
    return None if text in ("", "None", "None assigned", "(null)", "N/A") else text


def _seconds(elapsed: str) -> float:
    """Seconds of `D-HH:MM:SS` with its left parts missing."""
    days, _, clock = elapsed.rpartition("-")
    total = 0
    for part in clock.split(":"):
        if not part.isdigit():
            return 0.0
        total = 60 * total + int(part)
    return float(total + 86400 * int(days or 0))


def _minutes(time: int | str | None) -> int | None:
    """Whole minutes, rounded up, of a time limit as `Resources` takes it; None if there is none."""
    if time is None or isinstance(time, int):
        return time
    if not time[0].isdigit():
        return None
    days, dash, clock = time.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    # `5`: minutes, `5:30`: minutes and seconds, `1:5:30`: with hours; behind days it is hours that come first.
    scale = [3600, 60, 1] if dash or len(parts) == 3 else [60, 1]
    seconds = 86400 * int(days or 0) + sum(part * one for part, one in zip(parts, scale, strict=False))
    return -(-seconds // 60)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_extra(name: str, value: object) -> None:
    option = name.replace("_", "-") if isinstance(name, str) else ""
    known = {one.name.replace("_", "-"): one.name for one in fields(Resources)} | _FIELD_OF
    if option in _OURS:
        raise ValueError(f"extra.{name} is set by diffsweep itself: leave it out")
    if option in known:
        raise ValueError(f"extra.{name} has a place of its own: {known[option]}=...")
    if not re.fullmatch(r"[a-z][a-z0-9-]+", option):
        raise ValueError(f"extra.{name} is no option of sbatch: give its long name without dashes, as reservation")
    if not isinstance(value, (str, int)) or "\n" in str(value):
        raise ValueError(f"extra.{name}={value!r}: give text, a number, or true for an option without a value")


def _reason(text: str) -> str:
    """The last thing that a command of SLURM complained about, in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    plain = [re.sub(r"^(\w+: )?(error|fatal): ", "", line) for line in lines]
    return plain[-1].removeprefix("Batch job submission failed: ") if plain else "no reason given"
