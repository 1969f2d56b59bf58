"""Loggers of runs: our own files shown in W&B, TensorBoard and CSV.

loggers.py has Lightning's loggers, wandb_settings.py the settings of W&B, wandb_run.py an open W&B run,
wandb_server.py whether the server can be used, wandb_folder.py the files of offline runs, run_info.py and
record_values.py what is shown of a run; wandb_sync.py makes runs afterwards, wandb_summary.py and wandb_workspace.py a
sweep's summary and saved views.
Our own files are the record: W&B may fail at any of this, and no run fails with it.
"""
