"""Writes 5000 bytes to a file where no file may have more than 1000, and prints what is said of it."""

from __future__ import annotations

import resource
import signal
import sys

from diffsweep.sweep.store.record import CannotWriteError, write_atomic

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(sys.argv[1], bytes(5000))
except CannotWriteError as error:
    print(error)
