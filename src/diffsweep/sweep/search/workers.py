"""The workers of a search: processes of this machine, or one array of SLURM jobs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from diffsweep.sweep import slurm
from diffsweep.sweep.execute.local_pool import MachineResources
from diffsweep.sweep.execute.slurm_sweep import SlurmSettings, resources
from diffsweep.sweep.plan import snapshot
from diffsweep.sweep.plan.jobs import Job, LaunchRecord
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.search.search import Search
from diffsweep.sweep.store.process import Process

# The folder of a search and the number of a worker -> what the worker of that number runs.
MakeWorker = Callable[[Path, int], Callable[[], object]]

# Seconds that workers have to save their state.
_STOPPING = 60.0


class Workers(Protocol):
    """Starts and stops the workers of a search. `outlive_launcher`: they go on when the launcher is interrupted."""

    @property
    def outlive_launcher(self) -> bool: ...

    def start(self, indices: Sequence[int]) -> None:
        """Start workers with these numbers."""
        ...

    def alive(self) -> set[int]:
        """The numbers of the workers that it has started and that are not over."""
        ...

    def log(self, index: int) -> Path:
        """The log of a worker."""
        ...

    def stop(self) -> None:
        """Stop all of them; their state is saved."""
        ...


@runtime_checkable
class WorkerLauncher(Protocol):
    """A Hydra launcher that starts the workers of a search in its own way; any other one gets `LocalWorkers`."""

    @property
    def detaches(self) -> bool:
        """Whether the launcher returns once workers are started."""
        ...

    def search_workers(self, search: Search, source: Path, make_worker: MakeWorker) -> Workers:
        """The workers of `search`, which run from the snapshot `source`. Raises ValueError for bad settings."""
        ...


@dataclass
class LocalWorkers:
    """Workers as processes of this machine, each with its share of cores and GPUs; they outlive a killed launcher."""

    search: Search
    source: Path
    machine: MachineResources = field(default_factory=MachineResources.detect)
    outlive_launcher: bool = False
    _processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, indices: Sequence[int]) -> None:
        """Start workers with these numbers. Raises OSError."""
        for index in indices:
            log = self.log(index)
            log.parent.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "diffsweep.entry.trial", str(self.search.folder.absolute()), str(index)]
            with log.open("ab") as stream:
                self._processes[index] = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=stream,
                    env=os.environ | self._share(index) | snapshot.environment(self.source),
                    cwd=self.search.cwd,
                    # Ctrl-C goes to the launcher only, which then asks them to stop.
                    start_new_session=True,
                )

    def _share(self, index: int) -> dict[str, str]:
        share = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(self.threads)}
        if self.machine.gpus:
            share["CUDA_VISIBLE_DEVICES"] = self.machine.gpus[index % len(self.machine.gpus)]
        return share

    @property
    def threads(self) -> int:
        """CPU threads of a worker, unless the user has set OMP_NUM_THREADS."""
        return max(1, self.machine.cores // self.search.n_workers)

    def alive(self) -> set[int]:
        """The numbers of those that are not over."""
        return {index for index, process in self._processes.items() if process.poll() is None}

    def log(self, index: int) -> Path:
        """The log of a worker."""
        return self.search.folder / "logs" / f"worker-{index}.log"

    def stop(self) -> None:
        """Ask all of them to save their state and end; kill those that do not within a minute."""
        for index in self.alive():
            with suppress(ProcessLookupError):
                self._processes[index].send_signal(signal.SIGTERM)
        end = time.monotonic() + _STOPPING
        for process in self._processes.values():
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass
class SlurmWorkers:
    """Workers as one array of SLURM jobs, which need no launcher that waits for them."""

    search: Search
    source: Path
    settings: SlurmSettings
    resources: slurm.Resources
    make_worker: MakeWorker
    outlive_launcher: bool = True
    _ids: dict[int, str] = field(default_factory=dict)
    _alive: set[int] = field(default_factory=set)
    _poll_time: float = 0.0

    @classmethod
    def of(cls, search: Search, source: Path, settings: SlurmSettings, make_worker: MakeWorker) -> SlurmWorkers:
        """The workers of `search`. Raises ValueError where there is no SLURM, and for bad resources."""
        if not slurm.available():
            raise ValueError("hydra/launcher=slurm needs sbatch, which is not here: hydra/launcher=local runs here")
        plan = Plan(search.folder, search.runs).with_tasks([search.signed(search.example())])
        task = next(iter(plan.cells.values()))
        return cls(search, source, settings, resources(plan, Job("fit", task.fit, (task.cell,))), make_worker)

    def start(self, indices: Sequence[int]) -> None:
        """Submit workers with these numbers. Raises ValueError if SLURM refuses."""
        folder = self.search.folder.absolute()

        def record(ids: Mapping[int, str]) -> None:
            self._ids.update({indices[place]: name for place, name in ids.items()})
            jobs = tuple(Job("worker", id=name, log=f"slurm/{name}_0_log.out") for name in self._ids.values())
            launcher = None if self.settings.detach else Process.current()
            LaunchRecord("slurm", jobs, launcher).write(self.search.folder)

        slurm.submit(
            [slurm.Work(self.make_worker(folder, index), f"worker-{index}", self.resources) for index in indices],
            folder / "slurm",
            throttle=self.settings.throttle,
            environment=snapshot.environment(self.source),
            signal_seconds=self.settings.signal_seconds,
            requeues=self.settings.requeues,
            job_name=f"diffsweep:{self.search.name}",
            on_submitted=record,
        )
        self._alive.update(indices)
        self._poll_time = time.monotonic()

    def alive(self) -> set[int]:
        """The numbers of those in SLURM's queue, asked every `poll_seconds`; jobs that wait for a node count."""
        if self._ids and time.monotonic() - self._poll_time >= self.settings.poll_seconds:
            self._poll_time = time.monotonic()
            queue = slurm.queue(self._ids.values())
            if queue is not None:
                self._alive = {index for index, name in self._ids.items() if name in queue}
        return set(self._alive)

    def log(self, index: int) -> Path:
        """The log of a worker."""
        return self.search.folder / "slurm" / f"{self._ids.get(index)}_0_log.out"

    def stop(self) -> None:
        """Cancel all of them. Raises ValueError if SLURM cannot be asked."""
        slurm.cancel(self._ids.values())


def make_workers(search: Search, launcher: object, source: Path, make_worker: MakeWorker) -> Workers:
    """The workers of `search`, started by `launcher` if it can, else processes of this machine.

    Raises ValueError for SLURM where there is none, and for bad resources.
    """
    if isinstance(launcher, WorkerLauncher):
        return launcher.search_workers(search, source, make_worker)
    return LocalWorkers(search, source)
