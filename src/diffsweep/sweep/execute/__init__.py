"""Jobs of a plan on this machine or on SLURM, and the rule for trying again."""
