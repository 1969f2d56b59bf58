"""Jobs as SLURM runs them: a light process that forks the work, follows it and requeues itself; and the last job."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from diffsweep.entry.fork_server import fork_job
from diffsweep.ranks import is_first_rank
from diffsweep.sweep.execute.retry import INTERRUPTED, Follow, ended
from diffsweep.sweep.plan.jobs import Job, Launched
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.store.process import slurm_job


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
        if failed and is_first_rank():
            reason = failed[0].fit.error() if self.job.kind == "fit" else failed[0].cell.error()
            raise RuntimeError(f"{self.job.kind} of fit {self.job.fit}: {reason}")

    def _once(self, folder: Path, job: Job) -> tuple[int, dict[str, bool]]:
        reading, writing = os.pipe()

        def tell(event: dict[str, Any]) -> None:
            os.write(writing, (json.dumps(event) + "\n").encode())

        # The cores that SLURM gave to this task; without them every job would take all of the node.
        cores = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE", "")
        pid = fork_job(folder, job, threads=int(cores) if cores.isdigit() else None, tell=tell)
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
        if not is_first_rank():
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
        from diffsweep.entry import sweep_end

        plan = Plan.read(self.folder)
        sweep_end.show(plan.folder, plan.runs)
        launched = Launched.read(plan.folder)
        if launched is not None and (launched.launcher is None or not launched.launcher.alive()):
            launched.end(plan.folder)


def on_cluster(folder: str, job: Job, policy: Any) -> Callable[[], None]:
    """What SLURM is to run for `job` of the sweep in `folder`; `policy` is a `sweep.execute.slurm_sweep.Policy`."""
    return Table(folder) if job.kind == "finish" else Alone(folder, job, policy.retries, policy.requeues)


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
