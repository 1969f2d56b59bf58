"""Searches with Optuna: trials instead of a grid, by several workers, and resumable.

search.py is the frozen description of a search: space.py, objectives.py and strategy.py its parts. study.py is Optuna's
study on disk, workers.py starts the processes that run trials, worker_leases.py tells which of them live, supervisor.py
watches them, summary.py prints what a search found.
"""
