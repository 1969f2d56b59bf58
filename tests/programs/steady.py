"""A user's own schedule."""

from __future__ import annotations

from typing import Any

from diffsweep.diffusion import Schedule, preserving


class Steady(Schedule):
    """Log-SNR falls at a constant rate."""

    path = staticmethod(preserving)

    def __init__(self, high: float = 10.0, low: float = -8.0) -> None:
        self.high, self.low = high, low

    def logsnr(self, t: Any) -> Any:
        return self.high + (self.low - self.high) * t

    def inverse(self, logsnr: Any) -> Any:
        return (self.high - logsnr) / (self.high - self.low)
