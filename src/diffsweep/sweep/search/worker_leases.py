"""The leases of the workers of a search, which tell which workers live and which trials have lost theirs."""

from __future__ import annotations

from collections.abc import Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffsweep.sweep import slurm
from diffsweep.sweep.store.lease import Busy, Lease
from diffsweep.sweep.store.process import Process

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# Seconds; longer than the holder of a lease on another host may be silent.
PATIENCE = 75.0


@dataclass(frozen=True)
class WorkerLeases:
    """The leases of the workers of the search in `folder`: each worker has a number and holds the lease of it."""

    folder: Path

    @property
    def supervisor(self) -> Lease:
        """The lease of the process that supervises the search."""
        return Lease(self.folder / "workers")

    def of(self, index: int) -> Lease:
        """The lease of the worker with this number."""
        return Lease(self.folder / "workers" / str(index))

    def holders(self) -> dict[int, Process]:
        """The workers that are not known to be dead, by number; asked once."""
        found = {}
        for path in (self.folder / "workers").glob("*"):
            holder = Lease(path).holder() if path.name.isdigit() else None
            if holder is not None:
                found[int(path.name)] = holder
        return found

    def dead_elsewhere(self) -> set[int]:
        """Workers on other hosts that are dead: SLURM no longer has their job, or no heartbeat for a minute."""
        elsewhere = {index: holder for index, holder in self.holders().items() if holder.alive() is None}
        if not elsewhere:
            return set()
        jobs = {index: holder.slurm_job for index, holder in elsewhere.items() if holder.slurm_job}
        queue = slurm.queue(jobs.values()) if jobs and slurm.available() else None
        dead = {index for index, job in jobs.items() if queue is not None and job not in queue}
        unknown = [index for index in elsewhere if index not in dead and (queue is None or index not in jobs)]
        if unknown:
            with ThreadPoolExecutor(len(unknown)) as pool:
                dead |= {index for index, gone in zip(unknown, pool.map(self._is_silent, unknown), strict=True) if gone}
        return dead

    def _is_silent(self, index: int) -> bool:
        try:
            self.of(index).acquire(wait=PATIENCE).release()
        except Busy:
            return False
        return True

    def lost(self, trial: FrozenTrial, dead: Set[int]) -> bool:
        """Whether no process works on a running trial any more; `dead`: workers that are known to be dead."""
        index, process = trial.user_attrs.get("worker"), Process.parse(trial.user_attrs.get("process") or {})
        if index is None or process is None:
            # Its worker was killed, or has taken the slot and not yet written its name.
            return not set(self.holders()) - dead
        return index in dead or self.of(index).holder() != process
