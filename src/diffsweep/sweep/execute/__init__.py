"""Execution of a plan: its jobs on this machine or on SLURM, and the rule for trying again.

local_pool.py runs jobs in forks on the devices of this machine, slurm_sweep.py submits them, retry.py decides what is
left to do after a job has ended.
"""
