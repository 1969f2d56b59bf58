"""Quality and variety apart, from balls that reach to the k-th nearest neighbour of their centre within its own set.

    precision  share of drawn samples in the ball of some real one
    recall     share of real samples in the ball of some drawn one
    density    number of real samples in whose balls a drawn one lies, over k
    coverage   share of real samples in whose balls some drawn one lies

Sources: "Improved Precision and Recall Metric for Assessing Generative Models", arXiv 1904.06991, equations 1 and 2;
"Reliable Fidelity and Diversity Metrics for Generative Models", arXiv 2002.09797, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from diffsweep.evaluation.features import Features
from diffsweep.evaluation.metric import Numbers, Real
from diffsweep.evaluation.moments import double
from diffsweep.mistakes import whole

# Pairs in memory at a time.
_AT_ONCE = 2**20

# Relative rounding of squared distances. A sample this close to the rim of a ball is in it, as a copy must be of the
# sample that the ball reaches to.
_ROUNDING = 1e-12


class Neighbours:
    """`precision`, `recall`, `density` and `coverage`: larger is better, and only density may exceed 1.

    The balls grow where samples are few, so as many real samples are looked at as were drawn, always the same ones for
    the same number, and all of them if there are fewer.

    Args:
        k: neighbours that a ball of precision and recall reaches to.
        k_density: the same for density and coverage.

    Raises:
        ValueError: for fewer than 1 neighbour.
    """

    short = "precision"
    needs = ("features",)

    def __init__(self, k: int = 3, k_density: int = 5) -> None:
        self.k = whole("k", k, 1)
        self.k_density = whole("k_density", k_density, 1)

    def absence(self, drawn: Features, real: Real) -> str:
        """See `ExplainsAbsence`."""
        return f"it needs more than {max(self.k, self.k_density)} samples, drawn and real, without any block of them"

    def prepare(self, drawn: Features, real: Real) -> Numbers:
        """See `Metric.prepare`; no numbers where a set has no more samples than a ball has neighbours."""
        x = double(drawn["features"])
        y = double(_as_many(real.features["features"], len(x)).to(x.device))
        centre = y.mean(dim=0)
        x, y = x - centre, y - centre
        blocks = [block.to(x.device) for block in drawn.blocks]
        if min(len(x) - max(map(len, blocks)), len(y)) <= max(self.k, self.k_density):
            return lambda block: {}

        everyone = [torch.arange(len(y), device=y.device)]
        balls, dense_balls = (_radii(y, everyone, k)[0] for k in (self.k, self.k_density))
        drawn_balls = _radii(x, blocks, self.k)
        for number, block in enumerate(blocks):
            drawn_balls[1 + number, block] = -1
        right = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        dense = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        reached = torch.zeros(len(drawn_balls), dtype=torch.float64, device=x.device)
        covered = torch.zeros(len(drawn_balls), dtype=torch.float64, device=x.device)
        for first, squares in _squares(y, x):
            here = slice(first, first + len(squares))
            right |= (squares <= balls[here, None]).any(dim=0)
            inside = squares <= dense_balls[here, None]
            dense += inside.sum(dim=0)
            reached += torch.stack([(squares <= radii).any(dim=1).sum() for radii in drawn_balls])
            hit = torch.stack([inside[:, block].any(dim=1) for block in blocks])
            elsewhere = hit.sum(dim=0) - hit.long()
            covered += torch.cat((hit.any(dim=0).sum()[None], (elsewhere > 0).sum(dim=1)))
        found = {
            "precision": _means(right.double(), blocks),
            "recall": reached / len(y),
            "density": _means(dense / self.k_density, blocks),
            "coverage": covered / len(y),
        }

        def numbers(block: int | None) -> Mapping[str, float]:
            return {short: float(values[0 if block is None else 1 + block]) for short, values in found.items()}

        return numbers


def _as_many(features: Tensor, n: int) -> Tensor:
    """A fixed choice of `n` rows at most; in the order of the data they may be sorted by class."""
    return features[torch.randperm(len(features), generator=torch.Generator().manual_seed(0))[:n].to(features.device)]


def _squares(x: Tensor, y: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Squared distances of all pairs, some rows at a time: the number of the first, and (rows, m)."""
    squared = y.square().sum(dim=1)
    rows = max(1, _AT_ONCE // len(y))
    for first in range(0, len(x), rows):
        part = x[first : first + rows]
        yield first, (part @ y.T).mul_(-2).add_(part.square().sum(dim=1, keepdim=True)).add_(squared)


def _radii(x: Tensor, blocks: Sequence[Tensor], k: int) -> Tensor:
    """Squared radii (1 + blocks, n): to the k-th nearest other sample, of all and then of those outside each block."""
    found = []
    owner = torch.cat([torch.full((min(k, len(block)),), number) for number, block in enumerate(blocks)]).to(x.device)
    for first, squares in _squares(x, x):
        squares.diagonal(first).fill_(torch.inf)
        # The nearest of all that are left are among the nearest of each block.
        near = torch.cat([squares[:, block].topk(min(k, len(block)), largest=False).values for block in blocks], dim=1)
        left = [near] + [near[:, owner != number] for number in range(len(blocks)) if len(blocks) > 1]
        found.append(torch.stack([values.kthvalue(k).values for values in left]))
    radii = torch.cat(found, dim=1)
    return radii + _ROUNDING * (radii + x.square().sum(dim=1))


def _means(values: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    """Means (1 + blocks,): of all, and of those outside each block."""
    sums = torch.stack([values[block].sum() for block in blocks])
    counts = torch.tensor([len(block) for block in blocks], device=values.device)
    return torch.cat((values.mean()[None], (values.sum() - sums) / (len(values) - counts)))
