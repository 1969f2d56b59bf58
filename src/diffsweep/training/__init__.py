"""Training of one model, a fit: the Lightning module, its batches, averages, callbacks and checkpoints.

fit.py is a training from its checkpoint to its end. module.py is one step of an objective, batches.py the order of
examples (a function of data, seed and step only), ema.py the averaged weights, checkpoint.py what a training resumes
from, progress.py its log and status, validation.py the scoring of a training that goes on. Nothing here draws or
measures samples.
"""
