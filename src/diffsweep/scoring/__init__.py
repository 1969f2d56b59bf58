"""Scoring of one cell: numbered samples are drawn from a trained model and measured.

score.py draws, measures and records a cell; sampling.py draws sample i as a function of (weights, sampler, seed, i)
only, on any number of devices; measure.py computes the numbers of samples and of the real data that they are compared
with, of which reference_lease.py lets one process at a time compute what is missing; model_metrics.py holds numbers
of the model itself, such as the likelihood; text_metrics.py says what is measured of samples and the texts that they
were asked for, as retrieval.py and clip_score.py do; sample_files.py writes pictures, GIFs and sounds of samples;
weights.py loads the weights of a finished fit, power_average.py says what any average of them is made of;
shipped_classifier.py finds the classifiers that come with the package.
"""
