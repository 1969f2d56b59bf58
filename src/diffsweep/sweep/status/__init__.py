"""State of sweeps: how each fit and cell stands, derived from files and from SLURM's queue.

folder_state.py reads one folder, job_state.py one job, sweep_state.py puts them together, monitor.py does so again and
again while a sweep goes on, cheaply.
"""
