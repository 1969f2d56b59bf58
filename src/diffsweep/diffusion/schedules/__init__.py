"""One schedule per file; each is reached by ``_target_`` from ``conf/schedule``."""

from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.schedules.cosine import Cosine
from diffsweep.diffusion.schedules.linear import linear_betas
from diffsweep.diffusion.schedules.rectified import Rectified
from diffsweep.diffusion.schedules.tabulated import Tabulated
from diffsweep.diffusion.schedules.ve import VE

__all__ = ["VE", "Cosine", "Rectified", "Schedule", "Tabulated", "linear_betas"]
