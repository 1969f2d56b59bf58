"""Prints the names of the fit and of the cell of a config, given as JSON."""

from __future__ import annotations

import json
import sys

from diffsweep.sweep.store.signature import cell_signature, fit_signature

config = json.loads(sys.argv[1])
print(fit_signature(config), cell_signature(config))
