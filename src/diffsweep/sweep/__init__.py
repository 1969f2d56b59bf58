"""The sweep engine, without torch: store < plan < status < execute < search; each uses only those before it.

store/ is what lies on the disk, plan/ what a sweep consists of, status/ the state of each part of it, execute/ runs
jobs, search/ is Optuna's. slurm/, beside them, talks to SLURM.
"""
