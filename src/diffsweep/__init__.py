"""Compare diffusion models choice by choice.

>>> import diffsweep
>>> diffsweep.run("sampler=heun", "sampler.nfe=20")                    # doctest: +SKIP
>>> diffsweep.sweep("sampler=ddim,heun", "schedule=cosine,linear")     # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffsweep.results.shown import RunResult, SweepTable
    from diffsweep.results.start import sweep as sweep

__version__ = "0.1.0"


def run(*overrides: str, progress: bool = True) -> RunResult:
    """The result of one run, as `diffsweep train` makes it; see `diffsweep.results.start.run`."""
    from diffsweep.results.start import run

    return run(*overrides, progress=progress)


class _Sweep(ModuleType):
    """The package `diffsweep.sweep`, which is also the function that makes a sweep: both have one name."""

    def __call__(self, *overrides: str, progress: bool = True) -> SweepTable:
        """The finished cells of a sweep, as `diffsweep train -m` makes it; see `diffsweep.results.start.sweep`."""
        from diffsweep.results.start import sweep

        return sweep(*overrides, progress=progress)


importlib.import_module("diffsweep.sweep").__class__ = _Sweep
