"""Starts a SLURM cluster with a job that ignores SIGTERM, prints the cluster's folder, and waits to be ended."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from slurm import Cluster

with Cluster() as cluster:
    cluster.run("sbatch", "--output=/dev/null", "--wrap=trap '' TERM; sleep 300")
    cluster.wait_for_states(["1"], "RUNNING")
    print(cluster.folder, flush=True)
    signal.pause()
