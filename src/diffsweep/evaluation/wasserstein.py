"""The exact 2-Wasserstein distance of equally many points: the least root mean square way from one to the other.

W2^2 = min over pairings of the mean of |x_i - y_j|^2 is an assignment problem. Its dual is max sum_i u_i + sum_j v_j
where u_i + v_j <= |x_i - y_j|^2: how much each point costs. To first order, without some points the others cost what
they did, from which the jackknife follows without a second solution ("Central limit theorems for empirical
transportation cost in general dimension", arXiv 1705.01299, theorem 4.1: W2^2 varies as the mean of u does).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from diffsweep.evaluation.features import BLOCKS, Features
from diffsweep.evaluation.metric import Numbers, Real
from diffsweep.mistakes import whole

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Wasserstein:
    """W2 of drawn and real features, `w2`, in the unit of the features: exact for the points that are compared.

    As many real points as drawn ones, a fixed choice of those kept, or all of them in turn where there are fewer. Of
    equal distributions it is then not 0 but of the order of n^(-1/d) in d dimensions (see the floor): numbers compare
    at equal numbers of points only.

    Args:
        points: at most so many drawn ones are looked at, as many of each block: time grows with almost their cube.

    Raises:
        ValueError: for fewer points than blocks.
    """

    points: int = 2000

    short = "w2"
    needs = ("features",)

    def __post_init__(self) -> None:
        # One of each block of samples.
        whole("points", self.points, BLOCKS)

    def prepare(self, drawn: Features, real: Real) -> Numbers:
        """See `Metric.prepare`; at 2,000 points about a second, and another for the jackknife."""
        blocks = drawn.blocks
        if len(drawn) > self.points:
            blocks = [block[: self.points // len(blocks)] for block in blocks]
        x = _array(drawn["features"])[torch.cat(blocks).numpy()]
        known = _array(real.features["features"])
        order = torch.randperm(len(known), generator=torch.Generator().manual_seed(0)).numpy()
        y = known[np.resize(order, len(x))]
        ends = np.cumsum([len(block) for block in blocks])
        costs = np.asarray(cdist(x, y, "sqeuclidean"), dtype=np.float64)
        partner = linear_sum_assignment(costs)[1]
        paid = costs[np.arange(len(x)), partner]
        own: list[Array] = []

        def numbers(block: int | None) -> Mapping[str, float]:
            if block is None:
                return {self.short: math.sqrt(paid.mean())}
            if not own:
                own.append(_potentials(costs, partner))
            u = own[0]
            kept = np.delete(u, slice(ends[block] - len(blocks[block]), ends[block]))
            return {self.short: math.sqrt(max(0.0, float(kept.mean() + (paid - u).mean())))}

        return numbers


def _array(x: torch.Tensor) -> Array:
    return x.cpu().to(torch.float64).numpy()


def _potentials(costs: Array, partner: NDArray[np.intp]) -> Array:
    """Optimal u of the dual, (n,), given the optimal pairing.

    With v_j what j's partner leaves, the constraints are u_i <= u_k + costs[i, k'] - costs[k, k'] for k's partner k':
    shortest ways, by Bellman's and Ford's relaxation from the points that became cheaper in the last round.
    """
    n = len(costs)
    there = np.ascontiguousarray(costs[:, partner].T)
    there -= there.diagonal()[:, None].copy()
    # Far above rounding and far below any cost: without it two equally good pairings would relax each other for ever.
    least = 1e-12 * float(costs.max())
    u = np.zeros(n)
    cheaper = np.arange(n)
    while len(cheaper):
        offered = np.full(n, np.inf)
        for part in np.array_split(cheaper, -(-len(cheaper) // 64)):
            np.minimum(offered, (there[part] + u[part, None]).min(axis=0), out=offered)
        cheaper = np.flatnonzero(offered < u - least)
        u[cheaper] = offered[cheaper]
    return u
