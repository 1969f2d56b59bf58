"""Prints, as JSON, how this process is recorded, and ends."""

from __future__ import annotations

import json

from diffsweep.sweep.store.process import Process

print(json.dumps(Process.current().asdict()))
