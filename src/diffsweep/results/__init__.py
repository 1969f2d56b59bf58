"""Finished runs in Python: a table of all cells, any of their models, new samples, and what a choice is worth.

    >>> from diffsweep import results
    >>> df = results.load("runs", "dataset=digits")                 # doctest: +SKIP
    >>> results.compare(df, by="sampler")                           # doctest: +SKIP
    >>> images = results.sample("best", 64, sampler="heun")         # doctest: +SKIP

A choice is compared on pairs of cells that differ in nothing else, so that whatever makes all cells of a kind good or
bad (much training, an easy schedule) falls out of the difference. table.py loads, lookup.py finds a run by its name,
resample.py draws again, comparison.py compares, import_model.py makes a
fit of a foreign model, animation.py and external_config.py serve commands. start.py makes runs and sweeps from Python,
progress.py shows how far they are, shown.py what came out.
"""

from diffsweep.results.comparison import compare
from diffsweep.results.export_model import Exported, export_model
from diffsweep.results.import_model import ImportedModel, import_model
from diffsweep.results.lookup import find, load_fit
from diffsweep.results.resample import DEVICES, SampleRequest, sample, sample_request
from diffsweep.results.table import load

__all__ = [
    "DEVICES",
    "Exported",
    "ImportedModel",
    "SampleRequest",
    "compare",
    "export_model",
    "find",
    "import_model",
    "load",
    "load_fit",
    "sample",
    "sample_request",
]
