"""Plans of sweeps: composed cells, distinct trainings, jobs, and a copy of the source, frozen before anything runs.

compose.py composes each cell as Hydra would, plan.py is plan.json, prepare.py makes it from what a sweeper hands over,
jobs.py says which processes it needs, mode.py what is done again, snapshot.py copies the source, hydra_job.py is the
node `hydra` of a job. unread_keys.py refuses keys that nothing reads, with constructor.py and added_parameters.py;
override_text.py writes overrides as Hydra reads them, user_modules.py finds what is copied of the user's own code,
sense.py and folders.py refuse what cannot be meant.
"""
