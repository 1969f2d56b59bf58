"""One solver per file; each is reached by ``_target_`` from ``conf/sampler``."""

from diffsweep.diffusion.solvers.adaptive import Adaptive
from diffsweep.diffusion.solvers.base import Solver
from diffsweep.diffusion.solvers.dpm_solver_3 import DPMSolver3
from diffsweep.diffusion.solvers.dpmpp_2m import DPMpp2M
from diffsweep.diffusion.solvers.dpmpp_sde import DPMppSDE
from diffsweep.diffusion.solvers.euler import Euler
from diffsweep.diffusion.solvers.gradient_estimation import GradientEstimation
from diffsweep.diffusion.solvers.heun import Heun
from diffsweep.diffusion.solvers.ipndm import IPNDM
from diffsweep.diffusion.solvers.midpoint import Midpoint
from diffsweep.diffusion.solvers.multistep import Multistep
from diffsweep.diffusion.solvers.pndm import PNDM
from diffsweep.diffusion.solvers.rk4 import RK4
from diffsweep.diffusion.solvers.unipc import UniPC

__all__ = [
    "IPNDM",
    "PNDM",
    "RK4",
    "Adaptive",
    "DPMSolver3",
    "DPMpp2M",
    "DPMppSDE",
    "Euler",
    "GradientEstimation",
    "Heun",
    "Midpoint",
    "Multistep",
    "Solver",
    "UniPC",
]
