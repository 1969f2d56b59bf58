"""How a foreign network is told the noise level: one convention a file.

A convention is called with the log-SNR (N,) in float64 and the network's own schedule, and returns what the network
takes as its second argument: float64 (N,), or int64 where it takes whole numbers only.
"""

from diffsweep.interop.levels.base import LevelInput
from diffsweep.interop.levels.logsnr import LogSNR
from diffsweep.interop.levels.sigma import Sigma
from diffsweep.interop.levels.time import Time
from diffsweep.interop.levels.timestep import Timestep

__all__ = ["LevelInput", "LogSNR", "Sigma", "Time", "Timestep"]
