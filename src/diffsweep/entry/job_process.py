"""The command line of the processes in which the jobs of a sweep run.

`python -m diffsweep.entry.job_process serve EVENTS` imports torch once and forks a process for every job that the
launcher orders: a job then starts in milliseconds, and its death harms no other job. A SLURM job forks its work in the
same way. `python -m diffsweep.entry.job_process run FOLDER JOB` does one job in the foreground; Lightning starts the
other ranks of a local distributed training by this command line.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from diffsweep.entry.fork_server import serve
from diffsweep.entry.job import run_job
from diffsweep.sweep.plan.jobs import Job


def main(arguments: list[str]) -> int:
    """Run the subcommand `serve EVENTS` or `run FOLDER JOB`; returns the exit code."""
    if arguments[0] == "serve":
        serve(int(arguments[1]))
        # Some libraries complain at the end of an interpreter that has only forked.
        os._exit(0)
    # Lightning appends arguments of its own for the ranks that it starts; they are not read.
    return run_job(Path(arguments[1]), Job.parse(json.loads(arguments[2])), lambda event: None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
