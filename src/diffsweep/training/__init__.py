"""Training of one model, a fit: the Lightning module, its batches, averages, callbacks and checkpoints.

fit.py trains from the start or a checkpoint to the averaged weights; module.py is one step of an objective, batches.py
the order of examples (a function of data, seed and step only), ema.py the averaged weights, power_average.py those that
are kept for a choice after it, cost.py what the network costs, checkpoint.py what a
training resumes from, progress.py its log and status, validation.py when a training that goes on is scored, and
scoring_callbacks.py and sample_pictures.py score and show it by means of scoring/.
"""
