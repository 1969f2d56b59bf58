"""Searches with Optuna: trials instead of a grid, by several workers, and resumable.

study.py is the study on disk, space.py the space that overrides describe, workers.py and supervisor.py the processes
that run trials and those that watch them, summary.py what a search found.
"""
