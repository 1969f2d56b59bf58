"""The squared Frechet distance of two Gaussians, |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), in float64.

Source: "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", arXiv 1706.08500,
equation 6. Its bias shrinks with the number of images, so distances at different numbers cannot be compared.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from diffsweep.evaluation.downdate import change
from diffsweep.evaluation.moments import Moments, double
from diffsweep.mistakes import BadValue

if TYPE_CHECKING:
    from diffsweep.evaluation.features import Features
    from diffsweep.evaluation.metric import Numbers, Real


# Leaving vectors out by `change` costs what a decomposition does when there are as many as dimensions over this.
_DEARER = 5


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Frechet distance of the two Gaussians: finite and not negative, whatever the ranks of the covariances.

    The trace of (C1 C2)^(1/2) is the sum of the square roots of the eigenvalues of the symmetric R^T C1 R, where
    C2 = R R^T: real and not negative up to rounding, where those of C1 C2 turn complex.

    Raises:
        ValueError: when the features differ in number, or either side has fewer than two vectors.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"cannot compare {len(a.mean)} features with {len(b.mean)}: they come from two extractors")
    if min(a.n, b.n) < 2:
        raise ValueError(f"a Frechet distance needs at least 2 samples on each side, not {a.n} and {b.n}")
    root = _root(b.cov)
    cross = _roots(root.T @ a.cov @ root)
    return max(0.0, float((a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * cross))


class Frechet:
    """The Frechet distance of drawn and real features, `fd` (`fid` for Inception's), or of another output.

    Args:
        output: `features`; or `spatial`, not averaged over the picture, whose distance is `sfd` ("Generating images
            with sparse representations", arXiv 2103.03841, section 4); or, of videos, `frames` and `differences`, whose
            distances are `fd_frames` and `fd_differences` (see `evaluation.frames`).

    Raises:
        ValueError: for another output.
    """

    def __init__(self, output: str = "features") -> None:
        if output not in _SHORT:
            raise BadValue("output", output, f"has no Frechet distance: choose one of {', '.join(_SHORT)}")
        self.output = output
        self.short = _SHORT[output]

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.output,)

    def prepare(self, drawn: Features, real: Real) -> Numbers:
        """See `Metric.prepare`; about one decomposition of a d x d or, where there are fewer samples, n x n matrix, and
        for all blocks a few more, or one for each if blocks are large.
        """
        distance = leave_out(drawn[self.output], drawn.blocks, real.moments(self.output))
        return lambda block: {self.short: distance(block)}


def leave_out(x: Tensor, blocks: Sequence[Tensor], known: Moments) -> Callable[[int | None], float]:
    """The distance of vectors (n, d) to known moments, and the same without a block of the vectors.

    Args:
        x: Finite, on the device to compute on; at least 2 are left whatever block is left out.
        blocks: Which vectors are in each block, numbers (int64) or a mask (n,): each vector is in one. A block may be
            empty.
        known: At least 2 vectors.

    Returns:
        From a block's number, or None for no block, to the distance.
    """
    numbers = torch.arange(len(x), device=x.device)
    ordered = [numbers[block.to(x.device)] for block in blocks]
    n, lengths = len(x), [len(block) for block in ordered]
    x = double(x[torch.cat(ordered)])
    mean = x.mean(dim=0)
    x -= mean
    gap, cov = mean - known.mean.to(x.device), known.cov.to(x.device)
    sums = [part.sum(dim=0) for part in x.split(lengths)]
    squares = torch.stack([part.square().sum() for part in x.split(lengths)])
    trace = cov.trace()
    roots = (_few if n <= x.shape[1] else _many)(x, lengths, cov)

    def distance(block: int | None) -> float:
        left, square, here = n, squares.sum(), gap
        if block is not None:
            left -= lengths[block]
            # The others add up to minus its sum.
            shift = sums[block] / left
            here = gap - shift
            square = square - squares[block] - left * shift.square().sum()
        cross = roots(block) / math.sqrt(left - 1)
        return max(0.0, float(here.square().sum() + square / (left - 1) + trace - 2 * cross))

    return distance


# From a block's number, or None for no block, to the sum of the square roots of the eigenvalues of R^T S R, with S the
# scatter of what is left about its mean, and R R^T = cov.
_Left: TypeAlias = Callable[[int | None], Tensor]


def _few(x: Tensor, lengths: list[int], cov: Tensor) -> _Left:
    """By inner products (n, n), which have the same eigenvalues, and need no R."""
    inner = x @ cov @ x.T

    @functools.cache
    def decomposed() -> tuple[Tensor, Sequence[Tensor]]:
        # The vector of ones has no part in them: lifted above all others, it can be left out without a doubt.
        values, vectors = torch.linalg.eigh(inner + 2 * inner.trace() / len(inner))
        values = values[:-1].clamp(min=0)
        return values, (vectors[:, :-1] * values.sqrt()).split(lengths)

    def roots(block: int | None) -> Tensor:
        if block is None:
            return _roots(inner)
        values, rows = decomposed()
        return values.sqrt().sum() + change(values, rows[block], len(inner) - lengths[block])

    return roots


def _many(x: Tensor, lengths: list[int], cov: Tensor) -> _Left:
    """By the matrix itself: without a small block by `change`, without a large one by another decomposition."""
    whole = x @ _root(cov)
    scatter, rows = whole.T @ whole, whole.split(lengths)

    @functools.cache
    def decomposed() -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(scatter)
        return values.clamp(min=0), vectors

    def roots(block: int | None) -> Tensor:
        if block is None:
            return _roots(scatter)
        gone = rows[block]
        left = len(whole) - len(gone)
        if len(gone) * _DEARER > len(scatter):
            total = gone.sum(dim=0)
            return _roots(scatter - gone.T @ gone - torch.outer(total, total) / left)
        values, vectors = decomposed()
        return values.sqrt().sum() + change(values, gone @ vectors, left)

    return roots


def _roots(matrix: Tensor) -> Tensor:
    """Sum of the square roots of the eigenvalues of a symmetric matrix, of which one half is looked at."""
    return torch.linalg.eigvalsh(matrix).clamp(min=0).sqrt().sum()


_SHORT = {"features": "fd", "spatial": "sfd", "frames": "fd_frames", "differences": "fd_differences"}


def _root(cov: Tensor) -> Tensor:
    """Some R with R R^T = cov."""
    root, failed = torch.linalg.cholesky_ex(cov)
    if not failed:
        return root
    # Without full rank there is no Cholesky root; this one takes ten times as long.
    values, vectors = torch.linalg.eigh(cov)
    return vectors * values.clamp(min=0).sqrt()
