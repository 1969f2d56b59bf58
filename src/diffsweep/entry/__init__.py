"""The processes of the package: a launch, a job, the process that forks jobs, a SLURM job, a trial, a sweep's end."""
