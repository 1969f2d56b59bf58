"""Saturation: the share of stored values at an end of their range, where what lies beyond it is cut off.

A sampler that leaves the range of the data looks harmless in a distance of features: too many values of its images are
0 or 255. Real images have some of both, so the share of samples is recorded beside that of the data.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def saturated_values(stored: Tensor) -> Tensor | None:
    """How many values of each of the stored examples (N, ...) are at an end of their range, int64 (N,).

    None for real numbers, which have no such range.
    """
    if stored.dtype.is_floating_point:
        return None
    ends = torch.iinfo(stored.dtype)
    return ((stored == ends.min) | (stored == ends.max)).flatten(1).sum(dim=1)


def saturated_share(batches: Iterable[Tensor]) -> float | None:
    """The share of values at an end of their range in batches of stored examples (N, ...); None for real numbers."""
    found = total = 0
    for stored in batches:
        counts = saturated_values(stored)
        if counts is None:
            return None
        found, total = found + int(counts.sum()), total + stored.numel()
    return found / total if total else None
