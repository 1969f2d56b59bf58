"""One of several that race for the lease of a folder, so many rounds; prints nothing unless there are two holders.

Usage: `race_for_lease.py FOLDER ROUNDS SEED`. Sleeps between looking and creating, and keeping no old numbers, make the
races wide. With an odd seed it is killed in the middle of its last round. Each number that was held becomes a line of
the file `log` in the folder.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from diffsweep.sweep.store import lease as module

folder, rounds, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
random.seed(seed)
look = module._look


def slow_look(folder: Path) -> Any:
    seen = look(folder)
    time.sleep(random.random() ** 3 * 0.03)
    return seen


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


module._look, module._KEPT = slow_look, 1
marker = folder / "inside"
done = 0
while done < rounds:
    try:
        held = module.Lease(folder).acquire(wait=False)
    except module.Busy:
        time.sleep(random.random() * 0.01)
        continue
    try:
        descriptor = os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        other = int(marker.read_text() or 0)
        if alive(other):
            print(f"TWO HOLDERS: {os.getpid()} and {other}", flush=True)
            os._exit(3)
        descriptor = os.open(marker, os.O_WRONLY | os.O_TRUNC)
    os.write(descriptor, str(os.getpid()).encode())
    os.close(descriptor)
    with (folder / "log").open("a") as log:
        log.write(f"{held.number}\n")
    time.sleep(random.random() * 0.004)
    assert held.still_held()
    if seed % 2 and done == rounds - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    marker.unlink()
    held.release()
    done += 1
