"""How each fit and cell of a sweep stands, derived from files and from SLURM's queue."""
