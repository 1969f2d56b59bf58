"""Measures of samples: distances between sets of features, their intervals, and the extractors of features.

metric.py says what a metric is, evaluate.py applies those of a cell to samples and reference; each metric is a file
(frechet, mmd, kernel, wasserstein, accuracy, ...). extractor.py says what an extractor is; inception, efficientnet,
timm_features and classifier are extractors, frames of videos, mel of sounds. reference.py computes statistics of real
data once and keeps them on disk (running_statistics.py batch by batch, checked_tensors.py in files), images.py reads
foreign images, pictures.py draws grids and animations.
"""
