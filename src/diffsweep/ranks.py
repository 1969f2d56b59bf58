"""Who is first among the processes of one run: only the first rank writes files and speaks."""

from __future__ import annotations

import os


def is_first_rank() -> bool:
    """Whether this process leads; Lightning, and srun, start the others with these variables set.

    Without a step (sbatch without srun) SLURM_PROCID describes the batch script, and there are no other tasks.
    """
    ranks = ["LOCAL_RANK", "NODE_RANK", *(["SLURM_PROCID"] if "SLURM_STEP_ID" in os.environ else [])]
    return all(int(os.environ.get(name, "0")) == 0 for name in ranks)
