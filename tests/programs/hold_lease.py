"""Holds the lease of a folder, prints its pid, and waits until its input has a line or is closed.

Then it prints whether it still holds the lease: `still` or `lost`. `--host` and `--job`: as if on that host, in that
job of SLURM. `--status`: writes this JSON as the status of a running record.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from pathlib import Path

from diffsweep.sweep.store.lease import Lease
from diffsweep.sweep.store.record import Record

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("--host")
parser.add_argument("--job")
parser.add_argument("--status", type=json.loads)
parser.add_argument("--patience", type=float, default=60)
parser.add_argument("--heartbeat", type=float, default=0.1)
given = parser.parse_args()
if given.host:
    socket.gethostname = lambda: given.host
if given.job:
    os.environ["SLURM_JOB_ID"] = given.job
with Lease(given.folder, patience=given.patience, heartbeat=given.heartbeat).acquire() as held:
    if given.status is not None:
        Record(given.folder).write_status("running", **given.status)
    print(os.getpid(), flush=True)
    sys.stdin.readline()
    print("still" if held.still_held() else "lost", flush=True)
