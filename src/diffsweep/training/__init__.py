"""Fit, sample, evaluate: the three stages of a run, with Lightning underneath."""
