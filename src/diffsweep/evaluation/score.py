"""The Inception Score: exp of the mean divergence of p(class | sample) from their mean, over the parts of the samples.

    exp(mean of sum over classes of p log p  -  sum over classes of q log q),   q the mean of p

Source: "Improved Techniques for Training GANs", arXiv 1606.03498, section 4. It never looks at real samples.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from diffsweep.evaluation.features import Features
from diffsweep.evaluation.metric import Numbers, Real
from diffsweep.evaluation.moments import double
from diffsweep.mistakes import whole

# That of torch-fidelity, so that the parts are the same.
_SEED = 2020


class Score:
    """`score` (`inception_score` for Inception), from 1 to the number of classes: larger is better.

    The parts are those of torch-fidelity. Only sums over parts and blocks are kept, so that leaving a block out leaves
    every other sample in its part: dealt out anew, the parts would move the number more than the block does.

    Args:
        splits: number of random parts of equal size, whose scores are averaged; 10 in the paper.

    Raises:
        ValueError: for fewer than 1.
    """

    short = "score"
    needs = ("logits",)

    def __init__(self, splits: int = 10) -> None:
        self.splits = whole("splits", splits, 1)

    def least_samples(self, dimension: int) -> int:
        """See `NeedsSamples`: one for each part."""
        return self.splits

    def absence(self, drawn: Features, real: Real) -> str:
        """See `ExplainsAbsence`."""
        return f"it needs {self.splits} samples, one for each of its splits, and there are {len(drawn)}"

    def prepare(self, drawn: Features, real: Real) -> Numbers:
        """See `Metric.prepare`; no number for fewer samples than parts."""
        logits, n, splits = double(drawn["logits"]), len(drawn), self.splits
        if n < splits:
            return lambda block: {}
        shape = (splits, len(drawn.blocks))
        cell = torch.zeros(n, dtype=torch.long)
        order = torch.from_numpy(np.random.RandomState(_SEED).permutation(n))
        for part in range(splits):
            cell[order[part * n // splits : (part + 1) * n // splits]] = part * shape[1]
        for number, block in enumerate(drawn.blocks):
            cell[block] += number
        cell = cell.to(logits.device)
        log_p = logits.log_softmax(dim=1)
        p = log_p.exp()
        sums = torch.zeros(splits * shape[1], p.shape[1], dtype=p.dtype, device=p.device).index_add_(0, cell, p)
        # With a class that has no chance at all, p log p is 0.
        certainty = torch.zeros_like(sums[:, 0]).index_add_(0, cell, torch.special.entr(p).sum(dim=1).neg())
        sums, certainty = sums.unflatten(0, shape), certainty.unflatten(0, shape)
        counts = cell.bincount(minlength=splits * shape[1]).unflatten(0, shape)

        def numbers(block: int | None) -> Mapping[str, float]:
            kept = torch.arange(shape[1], device=cell.device) != (-1 if block is None else block)
            count = counts[:, kept].sum(dim=1)
            some = count > 0
            q = sums[:, kept].sum(dim=1)[some] / count[some, None]
            divergence = certainty[:, kept].sum(dim=1)[some] / count[some] + torch.special.entr(q).sum(dim=1)
            return {self.short: float(divergence.exp().mean())}

        return numbers
