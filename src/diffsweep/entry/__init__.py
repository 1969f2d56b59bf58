"""Processes of the package, from their start to their exit code.

train.py is the command line of one run, launch.py what every launcher does around its own way of running jobs, job.py
one job of a sweep, fork_server.py the process that forks jobs on this machine, slurm_job.py a job in SLURM,
job_process.py the command line of both, trial.py a trial of a search, sweep_end.py the table at the end of a sweep.
"""

from diffsweep.lazy_torchmetrics import import_lazily

# In processes of ours only: who imports the package for something else has torchmetrics as it is.
import_lazily()
