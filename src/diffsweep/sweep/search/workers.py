"""Where the workers of a search run: as processes of this machine, or as one array of SLURM jobs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Protocol

from diffsweep.sweep import slurm
from diffsweep.sweep.execute.local_pool import Room
from diffsweep.sweep.execute.slurm_sweep import Policy, resources
from diffsweep.sweep.plan import snapshot
from diffsweep.sweep.plan.jobs import Job, Launched
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.search.study import Search
from diffsweep.sweep.store.process import Process

# Folder and number -> what the worker of that number runs.
Make = Callable[[Path, int], Callable[[], object]]

_STOPPING = 60.0


class Crew(Protocol):
    """Whoever can have workers started. `stays`: they go on when this process is interrupted."""

    @property
    def stays(self) -> bool: ...

    def start(self, indices: Sequence[int]) -> None:
        """Start workers of these numbers."""
        ...

    def alive(self) -> set[int]:
        """Those that it has started and that are not over."""
        ...

    def log(self, index: int) -> Path:
        """What a worker says."""
        ...

    def stop(self) -> None:
        """Stop all of them, with their state saved."""
        ...


@dataclass
class Local:
    """Workers as processes of this machine, each with its share of cores and GPUs; they outlive this process."""

    search: Search
    source: Path
    room: Room = field(default_factory=Room.here)
    stays: bool = False
    _running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, indices: Sequence[int]) -> None:
        """Start workers of these numbers. Raises OSError."""
        for index in indices:
            log = self.log(index)
            log.parent.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "diffsweep.entry.trial", str(self.search.folder.absolute()), str(index)]
            with log.open("ab") as stream:
                self._running[index] = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=stream,
                    env=os.environ | self._share(index) | snapshot.environment(self.source),
                    cwd=self.search.hydra["runtime"]["cwd"],
                    # Ctrl-C is for this process, which then asks them to stop.
                    start_new_session=True,
                )

    def _share(self, index: int) -> dict[str, str]:
        share = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(self.threads)}
        if self.room.gpus:
            share["CUDA_VISIBLE_DEVICES"] = self.room.gpus[index % len(self.room.gpus)]
        return share

    @property
    def threads(self) -> int:
        """CPU threads of a worker, unless the user has said how many."""
        return max(1, self.room.cores // self.search.n_workers)

    def alive(self) -> set[int]:
        """Those that are not over."""
        return {index for index, process in self._running.items() if process.poll() is None}

    def log(self, index: int) -> Path:
        """What a worker says."""
        return self.search.folder / "logs" / f"worker-{index}.log"

    def stop(self) -> None:
        """Ask all of them to save their state and end; kill those that do not within a minute."""
        for index in self.alive():
            with suppress(ProcessLookupError):
                self._running[index].send_signal(signal.SIGTERM)
        end = time.monotonic() + _STOPPING
        for process in self._running.values():
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass
class OnSlurm:
    """Workers as one array of SLURM jobs; they need nobody to wait for them."""

    search: Search
    source: Path
    policy: Policy
    resources: slurm.Resources
    worker: Make
    stays: bool = True
    _ids: dict[int, str] = field(default_factory=dict)
    _alive: set[int] = field(default_factory=set)
    _asked: float = 0.0

    def start(self, indices: Sequence[int]) -> None:
        """Submit workers of these numbers. Raises ValueError if SLURM refuses."""
        folder = self.search.folder.absolute()

        def note(ids: Mapping[int, str]) -> None:
            self._ids.update({indices[place]: name for place, name in ids.items()})
            # They are neither fits nor cells; what matters is that whoever cancels the study finds them.
            jobs = tuple(Job("finish", id=name, log=f"slurm/{name}_0_log.out") for name in self._ids.values())
            Launched("slurm", jobs, None if self.policy.detach else Process.current()).write(self.search.folder)

        slurm.submit(
            [slurm.Work(self.worker(folder, index), f"worker-{index}", self.resources) for index in indices],
            folder / "slurm",
            throttle=self.policy.throttle,
            environment=snapshot.environment(self.source),
            signal_seconds=self.policy.signal_seconds,
            requeues=self.policy.requeues,
            job_name=f"diffsweep:{self.search.name}",
            on_submitted=note,
        )
        self._alive.update(indices)
        self._asked = time.monotonic()

    def alive(self) -> set[int]:
        """Those that SLURM has not seen end, asked every `poll_seconds`; jobs that wait for a node count."""
        if self._ids and time.monotonic() - self._asked >= self.policy.poll_seconds:
            self._asked = time.monotonic()
            queue = slurm.queue(self._ids.values())
            if queue is not None:
                self._alive = {index for index, name in self._ids.items() if name in queue}
        return set(self._alive)

    def log(self, index: int) -> Path:
        """What a worker says."""
        return self.search.folder / "slurm" / f"{self._ids.get(index)}_0_log.out"

    def stop(self) -> None:
        """Cancel all of them. Raises ValueError if SLURM cannot be told."""
        slurm.cancel(self._ids.values())


def crew(search: Search, source: Path, worker: Make) -> Crew:
    """The crew that the search's launcher stands for. `worker` makes what a worker runs, of folder and number.

    Raises ValueError for SLURM where there is none, and for bad resources.
    """
    launcher = search.hydra.get("launcher") or {}
    if not str(launcher.get("_target_", "")).endswith(".SlurmLauncher"):
        return Local(search, source)
    if not slurm.available():
        raise ValueError("hydra/launcher=slurm needs sbatch, which is not here: hydra/launcher=local runs here")
    policy = Policy(**{one.name: launcher[one.name] for one in fields(Policy)})
    plan = Plan(search.folder, search.runs).adding([search.signed(search.example())])
    cell = next(iter(plan.cells.values()))
    return OnSlurm(search, source, policy, resources(plan, Job("fit", cell.fit, (cell.cell,))), worker)
