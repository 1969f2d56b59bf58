"""Prints `go` and then writes a file again and again: 300,000 times one letter, until it is killed."""

from __future__ import annotations

import sys

from diffsweep.sweep.store.record import write_atomic

print("go", flush=True)
while True:
    for letter in "ab":
        write_atomic(sys.argv[1], letter * 300_000)
