"""Distances made of pairs: E k(X, X') + E k(Y, Y') - 2 E k(X, Y), each a mean over pairs of two different samples.

For a kernel this is the squared maximum mean discrepancy, without bias ("A Kernel Two-Sample Test", JMLR 13, 2012,
lemma 6); for k = -|x - y| it is the energy distance ("Equivalence of distance-based and RKHS-based statistics in
hypothesis testing", arXiv 1207.6076). Near zero it may be negative: only so is it zero on average between equals.

Sums over pairs of blocks are made once; leaving a block out then takes its sums away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

# (n, d) and (m, d) -> (n, m), symmetric.
Kernel: TypeAlias = Callable[[Tensor, Tensor], Tensor]

# Pairs in memory at a time: 8 MB in float64 for each array that a kernel makes on its way, which caches like.
_AT_ONCE = 2**20

_TOO_FEW = "pairs need at least 2 samples on each side, not {}"


def discrepancy(
    x: Tensor, y: Tensor, blocks: Sequence[Tensor], kernel: Kernel, own: float
) -> Callable[[int | None], float]:
    """The discrepancy of two sets, and the same without one of the blocks that `x` is divided into.

    Args:
        x: Finite, (n, d); at least 2 are left whatever block is left out. In the type and on the device to compute on.
        y: Of the same type, on the same device, (m, d).
        blocks: Numbers of the rows of `x` in each block (int64), together all of them, each once.
        kernel: k(x, y) of all pairs.
        own: E k(Y, Y'), as `among` gives it.

    Returns:
        From a block's number, or None for no block, to the discrepancy; sums are made in float64.

    Raises:
        ValueError: when `x` has fewer than 2 rows.
    """
    if len(x) < 2:
        raise ValueError(_TOO_FEW.format(len(x)))
    parts = [x[block.to(x.device)] for block in blocks]
    lengths = [len(part) for part in parts]
    n, m = len(x), len(y)
    within = torch.zeros(len(parts), len(parts), dtype=torch.float64)
    ordered = torch.cat(parts)
    for i, part in enumerate(parts):
        columns = _columns(part, ordered[sum(lengths[:i]) :], kernel).split(lengths[i:])
        within[i, i:] = within[i:, i] = torch.stack([column.sum() for column in columns]).cpu()
    across = torch.tensor([_across(part, y, kernel) for part in parts], dtype=torch.float64)
    all_within, all_across = float(within.sum()), float(across.sum())

    def without(block: int | None) -> float:
        left, pairs, crossing = n, all_within, all_across
        if block is not None:
            left -= lengths[block]
            pairs -= float(2 * within[block].sum() - within[block, block])
            crossing -= float(across[block])
        return pairs / (left * (left - 1)) + own - 2 * crossing / (left * m)

    return without


def _across(x: Tensor, y: Tensor, kernel: Kernel) -> float:
    rows = max(1, _AT_ONCE // len(y))
    return sum(float(kernel(part, y).sum(dtype=torch.float64)) for part in x.split(rows))


def among(y: Tensor, kernel: Kernel) -> float:
    """E k(Y, Y'), the mean over pairs of two different rows of `y` (m, d).

    Raises:
        ValueError: when there are fewer than 2.
    """
    m = len(y)
    if m < 2:
        raise ValueError(_TOO_FEW.format(m))
    rows = max(1, _AT_ONCE // m)
    total = 0.0
    for first in range(0, m, rows):
        columns = _columns(y[first : first + rows], y[first:], kernel)
        total += float(columns[:rows].sum() + 2 * columns[rows:].sum())
    return total / (m * (m - 1))


def _columns(x: Tensor, y: Tensor, kernel: Kernel) -> Tensor:
    """Sums over x of the kernel with each of y (m,), which begins with x: pairs of a row with itself are left out."""
    rows = max(1, _AT_ONCE // len(y))
    total = torch.zeros(len(y), dtype=torch.float64, device=y.device)
    for first in range(0, len(x), rows):
        values = kernel(x[first : first + rows], y)
        own = values[:, first : first + rows].diagonal()
        total += values.sum(dim=0, dtype=torch.float64)
        total[first : first + len(own)] -= own
    return total
