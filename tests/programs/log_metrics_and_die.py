"""Logs 100 rows of metrics to a file and is killed before the file is closed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from diffsweep.sweep.store.record import Metrics

metrics = Metrics(Path(sys.argv[1]))
for step in range(100):
    metrics.write(step, loss=0.5)
os.kill(os.getpid(), signal.SIGKILL)
