"""The sweep engine, without torch: store < plan < status < execute < search; each uses only those before it.

store/ is what lies on the disk, plan/ what a sweep consists of, status/ how each part of it stands, execute/ runs jobs,
search/ is Optuna's. slurm.py, beside them, talks to the commands of SLURM.
"""
