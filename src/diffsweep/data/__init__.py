"""Datasets: real images kept as uint8 in memory, and points with a known density."""
