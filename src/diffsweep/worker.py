"""What a job of a sweep does, in a process of its own.

On this machine torch is imported once, by a process that does nothing else (`python -m diffsweep.worker serve`, told
what to start by the launcher); every job is a fork of it, so a job starts in milliseconds and can die of anything
without another one noticing. In a SLURM job the job's own process stays light, forks and follows.
`python -m diffsweep.worker run FOLDER JOB` does one job in the foreground, as the other ranks of a local
DistributedDataParallel training are started.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import selectors
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from diffsweep.sweep.follow import INTERRUPTED, Follow, ended
from diffsweep.sweep.jobs import Job, Launched
from diffsweep.sweep.plan import Plan
from diffsweep.sweep.process import import_from, slurm_job

Tell = Callable[[dict[str, Any]], None]
_PATIENCE = 60.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGHUP)


def perform(folder: Path, job: Job, tell: Tell) -> int:
    """Do a job: train its fit, or evaluate its cells, one after the other.

    `tell` hears `{"cell": ..., "done": ...}` as each cell is over. Returns the exit code: 0, or 1 if anything failed;
    the reasons are in the records.
    """
    plan = Plan.read(folder)
    os.chdir(plan.hydra["runtime"]["cwd"])
    # The user's own modules: those of the snapshot, which stay as they are while this job waits for its turn; and not
    # those of the working folder, which `python -m` looks into first.
    work = Path(__file__).parents[1] / "work"
    if work.is_dir():
        sys.path[:] = [path for path in sys.path if path and Path(path) != Path.cwd()]
    import_from(work if work.is_dir() else Path.cwd())
    return _fit(plan, job) if job.kind == "fit" else _cells(plan, job, tell)


def _fit(plan: Plan, job: Job) -> int:
    from omegaconf import OmegaConf

    from diffsweep.training import stages

    cell = job.cells[0]
    for one in job.cells if len(job.cells) > 1 else ():
        # A cell whose sampler makes no sense must not keep the others from their training.
        with contextlib.suppress(Exception):
            stages.build(OmegaConf.create(plan.config(one)))
            cell = one
            break
    try:
        stages.train(OmegaConf.create(plan.config(cell)), plan.run(cell), plan.name)
    except Exception as error:
        _show(error)
        return 1
    return 0


def _cells(plan: Plan, job: Job, tell: Tell) -> int:
    from hydra._internal.callbacks import Callbacks
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.utils import JobReturn, JobStatus
    from omegaconf import OmegaConf

    from diffsweep.sweep.hydra import job_config
    from diffsweep.training import stages

    failed = False
    for cell in job.cells:
        task, run = plan.cells[cell], plan.run(cell)
        whole, cfg = job_config(plan, task), OmegaConf.create(plan.config(cell))
        HydraConfig.instance().set_config(whole)
        # Hydra's users expect to hear of a job once, not from each of its devices.
        callbacks = Callbacks(whole if _first_task() else None)
        back = JobReturn(overrides=list(task.overrides), cfg=cfg, working_dir=str(Path.cwd()), task_name="train")
        task_function: Any = stages.score
        callbacks.on_job_start(config=whole, task_function=task_function)
        try:
            result = stages.score(cfg, run, list(task.overrides), plan.name)
            back.return_value = result and result[result["metric"]]
            back.status = JobStatus.COMPLETED
        except Exception as error:
            back.return_value, back.status, failed = error, JobStatus.FAILED, True
            _show(error)
        callbacks.on_job_end(config=whole, job_return=back)
        tell({"cell": cell, "done": back.status == JobStatus.COMPLETED})
    return int(failed)


def _show(error: Exception) -> None:
    if isinstance(error, ValueError | OSError) and os.environ.get("HYDRA_FULL_ERROR") != "1":
        print(" ".join(str(error).split()), file=sys.stderr, flush=True)
    else:
        traceback.print_exception(error)


def _fork(folder: Path, job: Job, *, threads: int | None, tell: Tell, log: Path | None = None) -> int:
    """Start a job in a fork and return its pid."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent, pid = os.getpid(), os.fork()
    if pid:
        return pid
    code = 1
    try:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        # If the process that follows this one is killed, nobody would stop this one any more.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)
        if os.getppid() != parent:
            # It was killed before we had asked to be told.
            os._exit(128 + signal.SIGTERM)
        if log is not None:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        # The other ranks of a local distributed training are started as this command line.
        sys.argv[1:] = ["run", str(folder), json.dumps(asdict(job))]
        code = perform(folder, job, tell)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException as error:
        traceback.print_exception(error)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _ready() -> None:
    """Import what every job needs, and nothing that starts threads or touches a GPU."""
    import diffsweep.training.stages  # noqa: F401

    # What lives now lives in every fork: the collector would only copy its pages.
    gc.collect()
    gc.freeze()


def serve(events: int) -> None:
    """Fork a job for every line on standard input; say on the descriptor `events` what becomes of them.

    A line is a JSON object: `{"start": id, "folder", "job", "threads", "environment", "log"}` or `{"signal": number,
    "id": id}`. An event is one too: `{"id", "cell", "done"}` or `{"id", "exit"}` (negative for a signal), and first of
    all `{"ready": pid}`. At the end of the input all jobs are stopped.
    """
    _ready()

    def say(event: dict[str, Any]) -> None:
        # Short enough to be written whole, whoever else writes; and if nobody listens, the end of input is near.
        with contextlib.suppress(OSError):
            os.write(events, (json.dumps(event) + "\n").encode())

    running: dict[int, str] = {}
    wake, signalled = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(signalled, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(signalled)
    waiting = selectors.DefaultSelector()
    waiting.register(0, selectors.EVENT_READ)
    waiting.register(wake, selectors.EVENT_READ)
    say({"ready": os.getpid()})
    buffer, end = b"", None
    while end is None or (running and time.monotonic() < end):
        for key, _ in waiting.select(timeout=1.0):
            if key.fileobj == wake:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)
                continue
            block = os.read(0, 65536)
            if not block:
                waiting.unregister(0)
                end = time.monotonic() + _PATIENCE
                _signal(list(running), signal.SIGTERM)
                break
            *lines, buffer = (buffer + block).split(b"\n")
            for line in lines:
                order = json.loads(line)
                if "start" in order:
                    running[_start(order, say)] = order["start"]
                else:
                    _signal([pid for pid, name in running.items() if name == order["id"]], order["signal"])
        with contextlib.suppress(ChildProcessError):
            while (over := os.waitpid(-1, os.WNOHANG))[0]:
                say({"id": running.pop(over[0], ""), "exit": os.waitstatus_to_exitcode(over[1])})
    _signal(list(running), signal.SIGKILL)


def _start(order: Mapping[str, Any], say: Tell) -> int:
    before = dict(os.environ)
    os.environ.update(order["environment"])
    try:
        return _fork(
            Path(order["folder"]),
            Job.parse(order["job"]),
            threads=order["threads"],
            tell=lambda event: say({"id": order["start"], **event}),
            log=Path(order["log"]),
        )
    finally:
        os.environ.clear()
        os.environ.update(before)


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@dataclass(frozen=True)
class Alone:
    """A job as SLURM runs it: a callable that forks, follows and, if anything failed, fails itself.

    Before its time limit SLURM warns the job (SIGUSR2): its fork saves and leaves, and the job is queued again, at most
    `requeues` times. At any other signal (preemption, scancel, requeue) SLURM has decided what becomes of it: the fork
    saves and leaves, and the job waits for its end, for one that ends by itself within its grace is not queued again.
    `retries` as in `Follow`.
    """

    folder: str
    job: Job
    retries: int = 1
    requeues: int = 20

    def __call__(self) -> None:
        """Run to the end. Raises RuntimeError if the fit or a cell failed, so that SLURM knows."""
        folder = Path(self.folder)
        plan = Plan.read(folder)
        # One task of several cannot be tried again without the others.
        together = int(os.environ.get("SLURM_NTASKS", "1")) > 1
        follow = Follow(plan, 0 if together else self.retries)
        heard: list[int] = []
        # In place of submitit's, which would queue the job again while its fork is still saving.
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGCONT):
            signal.signal(number, lambda number, _: heard.append(number))
        rest: Job | None = self.job
        while rest is not None:
            code, told = self._once(folder, rest)
            if signal.SIGTERM in heard:
                _await_the_end()
            if signal.SIGUSR2 in heard or code in INTERRUPTED:
                self._again(plan)
            rest = follow.rest(rest, code, told)
            if together and code < 0:
                raise RuntimeError(f"task {os.environ.get('SLURM_PROCID')} of this job was {ended(code)}")
        runs = [plan.run(cell) for cell in self.job.cells]
        failed = [run for run in runs if not (run.fit.done if self.job.kind == "fit" else run.cell.done)]
        if failed and _first_task():
            reason = failed[0].fit.error() if self.job.kind == "fit" else failed[0].cell.error()
            raise RuntimeError(f"{self.job.kind} of fit {self.job.fit}: {reason}")

    def _once(self, folder: Path, job: Job) -> tuple[int, dict[str, bool]]:
        reading, writing = os.pipe()

        def tell(event: dict[str, Any]) -> None:
            os.write(writing, (json.dumps(event) + "\n").encode())

        # The cores that SLURM gave to this task; without them every job would take all of the node.
        cores = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE", "")
        pid = _fork(folder, job, threads=int(cores) if cores.isdigit() else None, tell=tell)
        os.close(writing)
        os.set_blocking(reading, False)
        told, over, status = b"", 0, 0
        # Not to the end of the pipe: what the fork has started may hold it open for longer.
        while not over:
            select.select([reading], [], [], 0.1)
            over, status = os.waitpid(pid, os.WNOHANG)
            with contextlib.suppress(BlockingIOError):
                while block := os.read(reading, 65536):
                    told += block
            time.sleep(0 if over else 0.02)
        os.close(reading)
        lines = [json.loads(line) for line in told.splitlines()]
        return os.waitstatus_to_exitcode(status), {line["cell"]: line["done"] for line in lines}

    def _again(self, plan: Plan) -> None:
        """Have SLURM queue this job again; if that has been done often enough, or it refuses, leave with the reason."""
        if not _first_task():
            _await_the_end()
        times = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        if times < self.requeues:
            print(f"to be queued again: {times + 1} of {self.requeues} times", file=sys.stderr, flush=True)
            if subprocess.run(["scontrol", "requeue", slurm_job() or ""], check=False).returncode == 0:
                _await_the_end()
        reason = f"came to its time limit {times + 1} times: raise resources.{self.job.kind}.time"
        run = plan.run(self.job.cells[0])
        record = run.fit if self.job.kind == "fit" else run.cell
        record.write_status("failed", reason=record.write_error(TimeoutError(reason)))
        raise TimeoutError(reason)


@dataclass(frozen=True)
class Table:
    """The last job of a sweep: writes its table, whatever became of the others."""

    folder: str

    def __call__(self) -> None:
        """Write and print it."""
        from diffsweep.report import callback

        plan = Plan.read(self.folder)
        callback.show(plan.folder, plan.runs)
        launched = Launched.read(plan.folder)
        if launched is not None and (launched.launcher is None or not launched.launcher.alive()):
            launched.end(plan.folder)


def on_cluster(folder: str, job: Job, policy: Any) -> Callable[[], None]:
    """What SLURM is to run for `job` of the sweep in `folder`; `policy` is a `sweep.cluster.Policy`."""
    return Table(folder) if job.kind == "finish" else Alone(folder, job, policy.retries, policy.requeues)


def _first_task() -> bool:
    """Whether this process is no mere helper: of a SLURM job's tasks, or of the ranks that Lightning starts."""
    return all(int(os.environ.get(name, "0")) == 0 for name in ("SLURM_PROCID", "LOCAL_RANK"))


def _await_the_end() -> NoReturn:
    """Wait until SLURM ends this job; leave before that only if it is cancelled.

    A job that is requeued or preempted and leaves by itself, however late, may be taken for one that failed.
    """
    while "JobState=CANCELLED" not in _asked("scontrol", "--oneliner", "show", "job", slurm_job() or ""):
        time.sleep(3)
    raise SystemExit(143)


def _asked(*command: str) -> str:
    # A controller that does not answer has decided nothing.
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    return ""


def main(arguments: list[str]) -> int:
    """`serve EVENTS`: see `serve`; `run FOLDER JOB`: do one job here."""
    if arguments[0] == "serve":
        serve(int(arguments[1]))
        # Some libraries complain when an interpreter ends that has only ever forked.
        os._exit(0)
    # Lightning adds words of its own for the ranks that it starts.
    return perform(Path(arguments[1]), Job.parse(json.loads(arguments[2])), lambda event: None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
