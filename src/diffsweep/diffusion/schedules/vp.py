"""VP: the continuous variance-preserving process, whose rate beta(t) is linear in time; exactly clean data at t = 0.

log alpha = -t^2 (beta_max - beta_min) / 4 - t beta_min / 2
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import logsigmoid

from diffsweep.diffusion.level import Level, preserving
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.mistakes import BadValue


class VP(Schedule):
    """Score-Based Generative Modeling through SDEs (arXiv 2011.13456, appendix C): DDPM's chain in the limit.

    Args:
        beta_min: Rate at t = 0, > 0.
        beta_max: Rate at t = 1.

    Raises:
        ValueError: unless 0 < beta_min <= beta_max, both finite.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        if not 0 < beta_min <= beta_max < math.inf:
            raise BadValue("beta_min", beta_min, f"must be above 0 and at most beta_max={beta_max}")
        self.beta_min = beta_min
        self.slope = beta_max - beta_min

    @staticmethod
    def path(logsnr: Tensor) -> Level:
        return preserving(logsnr)

    def logsnr(self, t: Tensor) -> Tensor:
        log_alpha2 = -(self.slope * t / 2 + self.beta_min) * t
        return log_alpha2 - (-log_alpha2.expm1()).log()

    def inverse(self, logsnr: Tensor) -> Tensor:
        decay = -logsigmoid(logsnr).clamp(min=-self.slope / 2 - self.beta_min)
        # The root of slope t^2 / 2 + beta_min t = decay, in the form that does not cancel at small t.
        return 2 * decay / (self.beta_min + (self.beta_min**2 + 2 * self.slope * decay).sqrt())
