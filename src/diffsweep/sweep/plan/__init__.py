"""Plans of sweeps: composed cells, distinct trainings, jobs, and a copy of the source, frozen before anything runs.

compose.py composes each cell as Hydra would, plan.py is plan.json, prepare.py makes it from what a sweeper hands over,
jobs.py says which processes it needs, snapshot.py copies the source, hydra_job.py is the node `hydra` of a job.
"""
