"""Prints the names of all modules in memory after something was done, behind a zero byte.

Usage: `loaded_modules.py import MODULE...`, `loaded_modules.py command WORD...` (diffsweep's command line),
`loaded_modules.py train WORD...` (train.py of the working folder), `loaded_modules.py provenance` (of this checkout).
"""

from __future__ import annotations

import sys
from importlib import import_module

what, *words = sys.argv[1:]
if what == "import":
    for name in words:
        import_module(name)
elif what == "command":
    from diffsweep.commands import main

    main(words)
elif what == "provenance":
    from diffsweep.sweep.store.record import provenance

    provenance()
else:
    import runpy

    sys.argv = ["train.py", *words]
    try:
        runpy.run_path("train.py", run_name="__main__")
    except SystemExit as stop:
        if stop.code:
            raise
sys.stdout.flush()
print("\0" + " ".join(sys.modules))
