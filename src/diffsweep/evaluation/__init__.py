"""How good samples are: feature extractors, the Frechet distance, reference statistics and pictures."""
