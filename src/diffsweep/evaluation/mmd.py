"""The squared maximum mean discrepancy with Gaussian kernels exp(-|x - y|^2 / (2 s^2)), averaged over several widths s.

Source: "A Kernel Two-Sample Test", JMLR 13 (2012), lemma 6. A kernel sees what differs at about its own width, hence
several: the median distance of real samples (section 8 there), which drawn ones cannot move, its half, its quarter ...
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffsweep.evaluation.features import Features
from diffsweep.evaluation.metric import Numbers, Real, settings
from diffsweep.evaluation.moments import double
from diffsweep.evaluation.pairs import Kernel, among, discrepancy
from diffsweep.mistakes import whole

# Real samples whose distances are asked for their median.
_ENOUGH = 1000


class MMD:
    """The squared MMD of drawn and real features, `mmd`, at most 2: an opinion on shape at several scales.

    Without bias, so that it does not depend on the number of samples, and may be negative near zero.

    Args:
        widths: how many kernels, each half as wide as the one before; the first as the median distance of real samples.

    Raises:
        ValueError: for no kernel.
    """

    short = "mmd"
    needs = ("features",)

    def __init__(self, widths: int = 4) -> None:
        self.widths = whole("widths", widths, 1)

    def prepare(self, drawn: Features, real: Real) -> Numbers:
        """See `Metric.prepare`; all pairs of drawn and real samples are looked at, once.

        Raises:
            ValueError: when half of the distances between real samples are 0.
        """
        x = double(drawn["features"])
        y = double(real.features["features"].to(x.device))
        kernel = self.kernel(y)
        own = real.keep(f"pairs {settings(self)}", lambda: {"own": among(y, kernel)})["own"]
        number = discrepancy(x, y, drawn.blocks, kernel, own)
        return lambda block: {self.short: number(block)}

    def kernel(self, real: Tensor) -> Kernel:
        """The kernel for these real samples, float64 (m, d); errors as `prepare`."""
        chosen = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))[:_ENOUGH]
        median = float(torch.nn.functional.pdist(real[chosen.to(real.device)]).median())
        if not median > 0:
            raise ValueError("mmd has no width to measure at: half of the distances between real samples are 0")
        factor = -1 / (2 * median**2)

        def kernel(x: Tensor, y: Tensor) -> Tensor:
            value = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square_().mul_(factor).exp_()
            total = value.clone()
            for _ in range(self.widths - 1):
                # At half the width it is the fourth power.
                total += value.square_().square_()
            return total.div_(self.widths)

        return kernel
