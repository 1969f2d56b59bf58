"""From the overrides of a sweep to its plan: composed cells, distinct trainings, jobs, a copy of the source."""
