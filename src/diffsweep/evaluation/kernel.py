"""The kernel distance: squared maximum mean discrepancy under (x . y / d + 1)^3, unbiased at any number of samples.

Source: "Demystifying MMD GANs", arXiv 1801.01401, section 4 (KID). It is the mean over pairs of all drawn and all kept
real samples, of which the usual mean over 100 random subsets is a noisy estimate with the same expectation.
"""

from __future__ import annotations

from torch import Tensor

from diffsweep.evaluation.features import Features
from diffsweep.evaluation.metric import Numbers, Real, settings
from diffsweep.evaluation.moments import double
from diffsweep.evaluation.pairs import among, discrepancy
from diffsweep.mistakes import whole


class KernelDistance:
    """The kernel distance of drawn and real features, `kd` (`kid` for Inception's); near zero it may be negative.

    Args:
        degree: of the polynomial kernel, at least 1; 3 for KID.

    Raises:
        ValueError: for another degree.
    """

    short = "kd"
    needs = ("features",)

    def __init__(self, degree: int = 3) -> None:
        self.degree = whole("degree", degree, 1)

    def absence(self, drawn: Features, real: Real) -> str:
        """See `ExplainsAbsence`."""
        return "it needs 2 real samples, and 2 drawn ones without any block of them"

    def prepare(self, drawn: Features, real: Real) -> Numbers:
        """See `Metric.prepare`; no number for fewer than 2 real samples, or fewer than 2 drawn without some block."""
        x = double(drawn["features"])
        y = double(real.features["features"].to(x.device))
        if len(y) < 2 or len(x) - max(map(len, drawn.blocks)) < 2:
            return lambda block: {}
        own = real.keep(f"pairs {settings(self)}", lambda: {"own": among(y, self._values)})["own"]
        distance = discrepancy(x, y, drawn.blocks, self._values, own)
        return lambda block: {self.short: distance(block)}

    def _values(self, x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T).div_(x.shape[1]).add_(1).pow_(self.degree)
