"""Who is first among the processes of one run: only the first rank writes files and speaks."""

from __future__ import annotations

import os


def is_first_rank() -> bool:
    """Whether this process leads; Lightning, and srun, start the others with these variables set.

    Without a step (sbatch without srun) SLURM_PROCID describes the batch script, and there are no other tasks.
    """
    ranks = ["LOCAL_RANK", "NODE_RANK", *(["SLURM_PROCID"] if "SLURM_STEP_ID" in os.environ else [])]
    return all(_number(name) == 0 for name in ranks)


def check_environment() -> None:
    """Raise ValueError, in one line, for a variable that a starter of ranks sets and that holds no whole number."""
    for name in ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "GLOBAL_RANK"):
        _number(name)


def _number(name: str) -> int:
    text = os.environ.get(name, "0")
    if not text.isdecimal():
        raise ValueError(f"the environment has {name}={text}, which is no rank: unset {name}, or let srun set it")
    return int(text)
