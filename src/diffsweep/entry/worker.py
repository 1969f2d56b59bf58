"""What a job of a sweep does, in a process of its own.

On this machine torch is imported once, by a process that does nothing else (`python -m diffsweep.entry.worker serve`);
it starts what the launcher orders, and every job is a fork of it: a job starts in milliseconds and can die of anything
without another one noticing. In a SLURM job the job's own process stays light, forks and follows.
`python -m diffsweep.entry.worker run FOLDER JOB` does one job in the foreground, as the other ranks of a local
DistributedDataParallel training are started.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from diffsweep.entry.fork_server import serve
from diffsweep.entry.job import perform
from diffsweep.sweep.plan.jobs import Job


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
