"""The jobs of a sweep on SLURM: one that forks, retries and requeues its work, and one that writes the table."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from diffsweep.entry.fork_server import fork_job
from diffsweep.messages import say
from diffsweep.ranks import is_first_rank
from diffsweep.sweep.execute.retry import INTERRUPTED, RetryPolicy, exit_reason
from diffsweep.sweep.execute.slurm_sweep import SlurmSettings
from diffsweep.sweep.plan.jobs import Job, LaunchRecord
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.store.process import slurm_job


@dataclass(frozen=True)
class SlurmJob:
    """A training or evaluation as SLURM runs it: a callable that forks the work and fails if any of it failed.

    Before its time limit SLURM warns the job (SIGUSR2): its fork saves its state and ends, and the job is queued again,
    at most `requeues` times. Any other signal (preemption, scancel, requeue) means that SLURM has decided the job's
    fate: the fork saves and ends, and the job waits to be ended, because a job that ends by itself in its grace time is
    not queued again. `retries` as in `RetryPolicy`.
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
        retry_policy = RetryPolicy(plan, 0 if together else self.retries)
        signals: list[int] = []
        # In place of submitit's, which would queue the job again while its fork is still saving.
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGCONT):
            signal.signal(number, lambda number, _: signals.append(number))
        rest: Job | None = self.job
        while rest is not None:
            code, finished_cells = self._run_fork(folder, rest)
            if signal.SIGTERM in signals:
                _wait_for_slurm()
            if signal.SIGUSR2 in signals or code in INTERRUPTED:
                self._requeue(plan)
            rest = retry_policy.remaining_job(rest, code, finished_cells)
            if together and code < 0:
                raise RuntimeError(f"task {os.environ.get('SLURM_PROCID')} of this job was {exit_reason(code)}")
        trained = [plan.training(self.job.fit)] if self.job.trains else []
        failed = [one for one in trained or map(plan.cell, self.job.cells) if not one.done]
        if failed and is_first_rank():
            noun = plan.training(self.job.fit).noun
            raise RuntimeError(f"{self.job.kind} of {noun} {self.job.fit}: {failed[0].error()}")

    def _run_fork(self, folder: Path, job: Job) -> tuple[int, dict[str, bool]]:
        reading, writing = os.pipe()

        def send(event: dict[str, Any]) -> None:
            os.write(writing, (json.dumps(event) + "\n").encode())

        # The cores that SLURM gave to this task; without them every job would take all of the node.
        cores = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE", "")
        pid = fork_job(folder, job, threads=int(cores) if cores.isdigit() else None, send=send)
        os.close(writing)
        os.set_blocking(reading, False)
        events, over, status = b"", 0, 0
        # Not to the end of the pipe: processes that the fork has started may keep it open for longer.
        while not over:
            select.select([reading], [], [], 0.1)
            over, status = os.waitpid(pid, os.WNOHANG)
            with contextlib.suppress(BlockingIOError):
                while block := os.read(reading, 65536):
                    events += block
            time.sleep(0 if over else 0.02)
        os.close(reading)
        lines = [json.loads(line) for line in events.splitlines()]
        return os.waitstatus_to_exitcode(status), {line["cell"]: line["done"] for line in lines}

    def _requeue(self, plan: Plan) -> None:
        """Have SLURM queue this job again; after `requeues` times, or if it refuses, record and raise TimeoutError."""
        if not is_first_rank():
            _wait_for_slurm()
        times = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        if times < self.requeues:
            say(f"to be queued again: {times + 1} of {self.requeues} times")
            if subprocess.run(["scontrol", "requeue", slurm_job() or ""], check=False).returncode == 0:
                _wait_for_slurm()
        reason = f"came to its time limit {times + 1} times: raise {self.job.resources_key}.time"
        record = plan.training(self.job.fit) if self.job.trains else plan.cell(self.job.cells[0])
        record.write_status("failed", reason=record.write_error(TimeoutError(reason)))
        raise TimeoutError(reason)


@dataclass(frozen=True)
class TableJob:
    """The last job of a sweep, which writes the table whether or not the other jobs succeeded."""

    folder: str

    def __call__(self) -> None:
        """Write and print it."""
        from diffsweep.entry import sweep_end

        plan = Plan.read(self.folder)
        sweep_end.show(plan.folder, plan.runs)
        launch = LaunchRecord.read(plan.folder)
        if launch is not None and (launch.launcher is None or not launch.launcher.alive()):
            launch.end(plan.folder)


def make_slurm_job(folder: str, job: Job, settings: SlurmSettings) -> Callable[[], None]:
    """The callable that SLURM runs for `job` of the sweep in `folder`."""
    return TableJob(folder) if job.kind == "finish" else SlurmJob(folder, job, settings.retries, settings.requeues)


def _wait_for_slurm() -> NoReturn:
    """Wait until SLURM ends this job; leave before that only if it is cancelled.

    A job that is requeued or preempted and leaves by itself, however late, may be taken for one that failed.
    """
    while "JobState=CANCELLED" not in _output("scontrol", "--oneliner", "show", "job", slurm_job() or ""):
        time.sleep(3)
    raise SystemExit(143)


def _output(*command: str) -> str:
    # A controller that does not answer has decided nothing.
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    return ""
