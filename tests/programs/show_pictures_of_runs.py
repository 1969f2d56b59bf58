"""Shows one run of a folder, prints `shown=`, and shows where the pictures of all its runs are.

It waits for a line before, by which the terminal on the other side says that it is ready.
"""

from __future__ import annotations

import sys
from pathlib import Path

from diffsweep.report import terminal
from diffsweep.sweep.store import query

input()
runs = sys.argv[1]
results = query.results(runs)
terminal.show_result(results[0], runs=runs)
print("shown=")
terminal.show_where(results, Path("table.csv"), Path("report.html"), runs=runs)
