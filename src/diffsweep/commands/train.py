"""`diffsweep train`: `python train.py` for whoever has no clone; Hydra reads all of its words."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def run(words: Sequence[str]) -> int:
    """One run, or with -m a sweep, as the config groups and values in `words` say."""
    from diffsweep.entry.train import main

    sys.argv[1:] = words
    main()
    return 0
