"""The pool that runs the jobs of a sweep on this machine, as many at once as its cores and GPUs allow.

One process that has imported torch (see `entry.fork_server`) forks every job. A job gets GPUs of its own, or a share of
the cores with as many threads; the shares are fixed before the sweep starts, so that a result does not depend on what
else was running. A job starts when the jobs that it depends on have succeeded.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from diffsweep.messages import say
from diffsweep.sweep.execute.retry import INTERRUPTED, RetryPolicy, exit_reason
from diffsweep.sweep.plan import snapshot
from diffsweep.sweep.plan.jobs import Job
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.store.process import terminable

_PATIENCE = 60.0


@dataclass(frozen=True)
class MachineResources:
    """The CPU cores and GPUs that this process may use.

    `gpus` are names that CUDA_VISIBLE_DEVICES takes; `jobs_per_gpu` jobs may share one.
    """

    cores: int
    gpus: tuple[str, ...] = ()
    jobs_per_gpu: int = 1

    @classmethod
    def detect(cls, jobs_per_gpu: int = 1) -> MachineResources:
        """The resources of this machine. Raises ValueError for `jobs_per_gpu` below 1."""
        if jobs_per_gpu < 1:
            raise ValueError(f"jobs_per_gpu={jobs_per_gpu} must be 1 or more")
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            gpus = tuple(name.strip() for name in visible.split(",") if name.strip() not in ("", "-1"))
        else:
            gpus = _gpus()
        return cls(cores, gpus, jobs_per_gpu)


@dataclass
class _RunningJob:
    """A job with its index, the resources that it occupies, and the cells that it reported as over."""

    job: Job
    index: int
    cores: int
    gpus: tuple[str, ...]
    finished_cells: dict[str, bool] = field(default_factory=dict)


class LocalPool:
    """Runs the jobs of a plan on this machine.

    Args:
        plan: Written to disk.
        jobs: Those of `RemainingWork.jobs`, each with its `id` and `log`.
        source: The snapshot to run from.
        retry_policy: Decides what is run again of jobs that end.
        resources: Of this machine.
        max_jobs: Jobs at once; null for as many as the resources allow.
    """

    def __init__(
        self,
        plan: Plan,
        jobs: Sequence[Job],
        source: Path,
        retry_policy: RetryPolicy,
        resources: MachineResources,
        max_jobs: int | None = None,
    ) -> None:
        if max_jobs is not None and max_jobs < 1:
            raise ValueError(f"jobs={max_jobs} must be 1 or more, or null for as many as the machine allows")
        self.plan = plan
        self.jobs = jobs
        self.source = source
        self.retry_policy = retry_policy
        self.resources = resources
        self.max_jobs = max_jobs
        self._cores = resources.cores
        self._gpus = dict.fromkeys(resources.gpus, resources.jobs_per_gpu)
        widths = {kind: sum(job.kind == kind for job in jobs) or 1 for kind in ("autoencoder", "fit", "cells")}
        at_once = min(resources.cores, max_jobs or resources.cores)
        self._share = {kind: max(1, resources.cores // min(at_once, width)) for kind, width in widths.items()}
        self._demands = [self._demand(job) for job in jobs]

    def run(self, tick: Callable[[], None]) -> None:
        """Run all jobs to their end; `tick` is called about every half second.

        Raises KeyboardInterrupt after Ctrl-C and SystemExit after SIGTERM, with every job stopped and its state saved;
        SystemExit, after one line, if the process that forks is gone: no job outlives it.
        """
        waiting = dict(enumerate(self.jobs))
        running: dict[str, _RunningJob] = {}
        over: dict[int, bool] = {}
        with terminable(), _ForkServer(self.source) as server:
            try:
                while waiting or running:
                    for index in list(waiting):
                        job = waiting[index]
                        if any(over.get(other) is False for other in job.after):
                            # Its fit has failed; the status of the sweep says so for its cells.
                            over[index] = False
                            del waiting[index]
                        elif all(over.get(other) for other in job.after) and len(running) < (self.max_jobs or math.inf):
                            gpus = self._take(index)
                            if gpus is not None:
                                running[job.id] = _RunningJob(waiting.pop(index), index, self._demands[index][0], gpus)
                                self._start(server, running[job.id])
                    tick()
                    for event in server.events(0.5):
                        self._handle(event, running, waiting, over)
                tick()
            except BaseException:
                server.stop()
                raise

    def _handle(
        self, event: Mapping[str, Any], running: dict[str, _RunningJob], waiting: dict[int, Job], over: dict[int, bool]
    ) -> None:
        one = running.get(event.get("id", ""))
        if one is None:
            return
        if "cell" in event:
            one.finished_cells[event["cell"]] = event["done"]
            return
        del running[event["id"]]
        self._cores += one.cores
        for gpu in one.gpus:
            self._gpus[gpu] += 1
        rest = self.retry_policy.remaining_job(one.job, event["exit"], one.finished_cells)
        if rest is not None:
            waiting[one.index] = rest
        else:
            done = event["exit"] not in INTERRUPTED
            if one.job.trains:
                done = self.plan.training(one.job.fit).done
            over[one.index] = done

    def _demand(self, job: Job) -> tuple[int, int]:
        """Cores and GPUs of a job. Raises ValueError if the machine does not have them."""
        trainer = self.plan.part(job.cells[0], "trainer") or {}
        devices = trainer.get("devices", 1)
        if job.kind == "autoencoder":
            # It is trained on one device, however many a fit has.
            devices = 1
        if trainer.get("accelerator") in ("gpu", "cuda"):
            gpus = len(self.resources.gpus) if devices in ("auto", -1, "-1") else _device_count(devices)
            if not 0 < gpus <= len(self.resources.gpus):
                raise ValueError(
                    f"trainer.devices={devices} GPUs are asked for and this machine has {len(self.resources.gpus)}; "
                    "trainer=cpu runs everywhere"
                )
            return 0, gpus
        cores = self._share[job.kind] if trainer.get("threads") is None else trainer["threads"]
        return min(self.resources.cores, cores * (devices if isinstance(devices, int) and devices > 0 else 1)), 0

    def _take(self, index: int) -> tuple[str, ...] | None:
        """Occupy the cores and GPUs that a job needs and return its GPUs; None while they are not free."""
        cores, gpus = self._demands[index]
        free = sorted((name for name, left in self._gpus.items() if left), key=lambda name: -self._gpus[name])
        if cores > self._cores or gpus > len(free):
            return None
        self._cores -= cores
        for name in free[:gpus]:
            self._gpus[name] -= 1
        return tuple(free[:gpus])

    def _start(self, server: _ForkServer, one: _RunningJob) -> None:
        trainer = self.plan.part(one.job.cells[0], "trainer") or {}
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(one.gpus)} if one.gpus else {}
        threads = self._share[one.job.kind] if trainer.get("threads") is None and one.cores else None
        if threads:
            environment["OMP_NUM_THREADS"] = str(threads)
        log = self.plan.folder.absolute() / one.job.log
        log.parent.mkdir(parents=True, exist_ok=True)
        server.order(
            {
                "start": one.job.id,
                "folder": str(self.plan.folder.absolute()),
                "job": asdict(one.job),
                "threads": threads,
                "environment": environment,
                "log": str(log),
            }
        )


class _ForkServer:
    """The launcher's side of the process that forks jobs: its orders go out on one pipe, its events come on another."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._buffer = b""
        self._log = source.with_name("worker.log")

    def __enter__(self) -> _ForkServer:
        reading, writing = os.pipe()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "diffsweep.entry.job_process", "serve", str(writing)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[writing],
                env={**os.environ, **snapshot.environment(self._source)},
                # Ctrl-C goes to the launcher only, which then stops the jobs.
                start_new_session=True,
            )
        os.close(writing)
        os.set_blocking(reading, False)
        self._reading = reading
        self._selector = selectors.DefaultSelector()
        self._selector.register(reading, selectors.EVENT_READ)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE + 5)
        self._process.kill()
        self._process.wait()
        os.close(self._reading)

    def order(self, order: Mapping[str, Any]) -> None:
        """Send one line. Raises SystemExit if nobody reads it any more."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write((json.dumps(order) + "\n").encode())
            self._process.stdin.flush()
        except OSError:
            self._gone()

    def events(self, seconds: float) -> list[dict[str, Any]]:
        """What has happened, after waiting up to `seconds` for it. Raises SystemExit if the process is gone."""
        if not self._selector.select(seconds):
            return []
        block = b""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._reading, 65536):
                block += part
        if not block:
            self._gone()
        *lines, self._buffer = (self._buffer + block).split(b"\n")
        return [json.loads(line) for line in lines]

    def stop(self) -> None:
        """Ask every job to save its state and leave, and wait for that."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.wait(_PATIENCE)

    def _gone(self) -> NoReturn:
        text = self._log.read_text(errors="reindex").strip().splitlines()
        where = f": {text[-1]} (see {self._log})" if text else ""
        say(f"the process that starts the jobs is gone: {exit_reason(self._process.wait())}{where}")
        raise SystemExit(1)


def _device_count(devices: object) -> int:
    text = str(devices)
    return int(text) if text.isdigit() else len(devices) if isinstance(devices, (list, tuple)) else 0


def _gpus() -> tuple[str, ...]:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=True)
        return tuple(str(index) for index, line in enumerate(done.stdout.splitlines()) if line.startswith("GPU "))
    return ()
