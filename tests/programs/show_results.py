"""Shows results, given as a JSON list of flat records, as a run and as a sweep are shown in the terminal."""

from __future__ import annotations

import json
import sys

from diffsweep.report.terminal import show_result, show_sweep
from diffsweep.sweep.store.result import Result

results = [Result.parse(record) for record in json.loads(sys.argv[1])]
show_result(results[0])
show_sweep(results)
