"""Shift: the same curve, moved in log-SNR by the size of the image: logsnr + 2 log(base / size).

Neighbouring pixels agree, so on a larger picture the same noise hides less; the shift makes up for it. On the straight
path (``rectified``) it is the timestep shift of Scaling Rectified Flow Transformers (arXiv 2403.03206, eq. 23),
t -> r t / (1 + (r - 1) t) with r = size / base.
"""

from __future__ import annotations

import math

from torch import Tensor

from diffsweep.diffusion.level import Level
from diffsweep.diffusion.schedules.base import Schedule
from diffsweep.mistakes import above


class Shifted(Schedule):
    """simple diffusion (arXiv 2301.11093, section 3), for any schedule; its ends move with it.

    Args:
        inner: The schedule to shift, on whose path this one stays.
        size: Height of the images, > 0.
        base: Height at which ``inner`` would be right, > 0.

    Raises:
        ValueError: for a size or base that is not above 0.
    """

    def __init__(self, inner: Schedule, size: float = 64, base: float = 64) -> None:
        for name, value in (("size", size), ("base", base)):
            above(name, value, why="it is a height in pixels")
        self.inner = inner
        self.shift = 2 * math.log(base / size)

    # Not static here: which path it is depends on the schedule inside.
    def path(self, logsnr: Tensor) -> Level:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.inner.path(logsnr)

    def logsnr(self, t: Tensor) -> Tensor:
        return self.inner.logsnr(t) + self.shift

    def inverse(self, logsnr: Tensor) -> Tensor:
        return self.inner.inverse(logsnr - self.shift)
