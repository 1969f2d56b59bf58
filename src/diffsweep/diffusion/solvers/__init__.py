"""One solver per file; each is reached by ``_target_`` from ``conf/sampler``."""

from diffsweep.diffusion.solvers.base import Solver
from diffsweep.diffusion.solvers.dpmpp_2m import DPMpp2M
from diffsweep.diffusion.solvers.euler import Euler
from diffsweep.diffusion.solvers.heun import Heun

__all__ = ["DPMpp2M", "Euler", "Heun", "Solver"]
