"""A launcher of the sweep in a folder: prints `ready`, and when it is ended needs half a second to save.

As if a script had started it in the background: Ctrl-C is nothing to it. It leaves a file `saved`.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from diffsweep.sweep.plan.jobs import LaunchRecord
from diffsweep.sweep.store.process import Process, terminable

signal.signal(signal.SIGINT, signal.SIG_IGN)
folder = Path(sys.argv[1])
with terminable():
    LaunchRecord("local", (), Process.current()).write(folder)
    try:
        print("ready", flush=True)
        signal.pause()
    finally:
        time.sleep(0.5)
        (folder / "saved").touch()
