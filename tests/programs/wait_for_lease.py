"""Waits for the lease of a folder, of which it prints `waiting`; then the folders in it, and whether it is held."""

from __future__ import annotations

import sys
from pathlib import Path

from diffsweep.sweep.store.lease import Lease

folder = Path(sys.argv[1])
with Lease(folder).acquire(on_wait=lambda holder: print("waiting", flush=True)) as held:
    print(*sorted(path.name for path in folder.iterdir() if path.is_dir()), held.still_held())
