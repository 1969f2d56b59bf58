"""The only readers of the composed config: they build the parts of a run, do its stages, load a finished fit."""
