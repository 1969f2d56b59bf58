"""The energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'|: 0 between equal distributions only, and nothing to choose.

Source: G. Szekely, M. Rizzo, "Energy statistics: A class of statistics based on distances", Journal of Statistical
Planning and Inference 143 (2013), definition 1. In one dimension it is 2 integral (F - G)^2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffsweep.evaluation.features import Features
from diffsweep.evaluation.metric import Numbers, Real, settings
from diffsweep.evaluation.moments import double
from diffsweep.evaluation.pairs import among, discrepancy


@dataclass(frozen=True)
class Energy:
    """The energy distance of drawn and real features, `energy`, in the unit of the features.

    Without bias, so that it does not depend on the number of samples, and may be negative near zero.
    """

    short = "energy"
    needs = ("features",)

    def prepare(self, drawn: Features, real: Real) -> Numbers:
        """See `Metric.prepare`; all pairs of drawn and real samples are looked at, once."""
        x = double(drawn["features"])
        y = double(real.features["features"].to(x.device))
        own = real.keep(f"pairs {settings(self)}", lambda: {"own": among(y, _nearness)})["own"]
        number = discrepancy(x, y, drawn.blocks, _nearness, own)
        return lambda block: {self.short: number(block)}


def _nearness(x: Tensor, y: Tensor) -> Tensor:
    # By differences: through inner products near points lose half of their digits.
    return -torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
