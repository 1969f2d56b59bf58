"""Work on one run: the only readers of the composed config, which build its parts and do its stages.

build.py makes all objects of a run and refuses what does not go together, instantiate.py makes one object of a config,
stages.py trains a fit and scores a cell, load_fit.py rebuilds a finished model, resample.py draws from it again,
external.py scores foreign images, prefetch.py fetches data and weights, trust.py says what a foreign config may name.
"""
