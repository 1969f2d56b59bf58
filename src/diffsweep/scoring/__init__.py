"""Scoring of one cell: numbered samples are drawn from a trained model and measured.

score.py is the scoring of a cell from its samples to its result. sampling.py draws sample i as a function of (weights,
sampler, seed, i) only, on any number of devices; measure.py builds the metrics of a cell; model_metrics.py holds
numbers of the model itself, such as the likelihood; weights.py loads the weights of a finished fit;
shipped_classifier.py finds the classifiers that come with the package.
"""
