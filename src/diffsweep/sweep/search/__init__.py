"""A search with Optuna: study, space, supervisor, workers, summary."""
