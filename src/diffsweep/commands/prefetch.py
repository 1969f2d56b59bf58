"""`diffsweep prefetch`: `diffsweep train -m` with mode=prefetch."""

from __future__ import annotations

import argparse

from diffsweep.commands.plan import arguments, train

__all__ = ["arguments", "run"]


def run(options: argparse.Namespace) -> int:
    """Fetch the data and weights that `diffsweep train -m OVERRIDE ...` needs, and compute the data's statistics.

    Run it where there is internet; the jobs then need none.
    """
    return train(options, "prefetch")
