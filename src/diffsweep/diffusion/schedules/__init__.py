"""One schedule per file; each is reached by ``_target_`` from ``conf/schedule``."""

from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.diffusion.schedules.cosine import Cosine
from diffsweep.diffusion.schedules.karras import Karras
from diffsweep.diffusion.schedules.laplace import Laplace
from diffsweep.diffusion.schedules.linear import linear_betas, scaled_linear_betas
from diffsweep.diffusion.schedules.rectified import Rectified
from diffsweep.diffusion.schedules.shifted import Shifted
from diffsweep.diffusion.schedules.sigmoid import Sigmoid
from diffsweep.diffusion.schedules.tabulated import Tabulated, TabulatedSigmas
from diffsweep.diffusion.schedules.ve import VE
from diffsweep.diffusion.schedules.vp import VP
from diffsweep.diffusion.schedules.zero_snr import ZeroSNR

__all__ = [
    "VE",
    "VP",
    "Cosine",
    "Karras",
    "Laplace",
    "Rectified",
    "Schedule",
    "Shifted",
    "Sigmoid",
    "Tabulated",
    "TabulatedSigmas",
    "ZeroSNR",
    "linear_betas",
    "scaled_linear_betas",
]
