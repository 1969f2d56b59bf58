"""The squared Frechet distance of two Gaussians, |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), in float64.

Source: "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", arXiv 1706.08500,
equation 6. Its bias shrinks with the number of images, so distances at different numbers cannot be compared.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffsweep.evaluation.features import Features
    from diffsweep.evaluation.metric import Numbers, Real


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and covariance of `n` feature vectors.

    Attributes:
        mean: float64 (d,), on the CPU.
        cov: float64 (d, d), with divisor n - 1 (zero when n is 1), on the CPU.
        n: number of vectors.
    """

    mean: Tensor
    cov: Tensor
    n: int

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Moments of finite features (n, d), n >= 1, from any device."""
        moments = _moments(double(features))
        return cls(moments.mean.cpu(), moments.cov.cpu(), moments.n)

    def merge(self, other: Moments) -> Moments:
        """Moments of both sets together, as if their features had been seen at once.

        Source: T. Chan, G. Golub, R. LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
        Variances" (1979), equation 2.1: only differences of means are squared, so nothing cancels.
        """
        n = self.n + other.n
        delta = other.mean - self.mean
        scatter = self.cov * (self.n - 1) + other.cov * (other.n - 1)
        scatter += torch.outer(delta, delta) * (self.n * other.n / n)
        return Moments(self.mean + delta * (other.n / n), scatter / (n - 1), n)

    def without(self, part: Moments) -> Moments:
        """Moments of what is left when `part`, some of these vectors, is taken away: the inverse of `merge`."""
        n = self.n - part.n
        mean = self.mean + (self.mean - part.mean) * (part.n / n)
        delta = part.mean - mean
        scatter = self.cov * (self.n - 1) - part.cov * (part.n - 1)
        scatter -= torch.outer(delta, delta) * (n * part.n / self.n)
        return Moments(mean, scatter / max(n - 1, 1), n)


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
    return _distance(a, b, _root(b.cov))


def _distance(a: Moments, b: Moments, root: Tensor) -> float:
    """The distance, given a root of b's covariance."""
    return _gap(a, b, root.T @ a.cov @ root)


def _gap(a: Moments, b: Moments, product: Tensor) -> float:
    """The distance, given a symmetric matrix with the eigenvalues of a's covariance times b's."""
    cross = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * cross
    return max(float(distance), 0.0)


class Frechet:
    """The Frechet distance of drawn and real features, `fd` (`fid` for Inception's), or of another output.

    Args:
        output: `features`; or `spatial`, not averaged over the picture, whose distance is `sfd` ("Generating images
            with sparse representations", arXiv 2103.03841, section 4).

    Raises:
        ValueError: for another output.
    """

    def __init__(self, output: str = "features") -> None:
        if output not in _SHORT:
            raise ValueError(f"output={output} has no Frechet distance: choose one of {', '.join(_SHORT)}")
        self.output = output
        self.short = _SHORT[output]

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.output,)

    def prepare(self, drawn: Features, real: Real) -> Numbers:
        """See `Metric.prepare`; about one decomposition of a d x d or, where there are fewer samples, n x n matrix
        for each block.
        """
        distance = leave_out(double(drawn[self.output]), drawn.blocks, real.moments(self.output))
        return lambda block: {self.short: distance(block)}


def leave_out(x: Tensor, blocks: Sequence[Tensor], known: Moments) -> Callable[[int | None], float]:
    """The distance of vectors (n, d), float64, to known moments, and the same without a block of the vectors.

    Args:
        x: Finite, on the device to compute on; at least 2 are left whatever block is left out.
        blocks: Which vectors are in each block, numbers (int64) or a mask (n,); a block may be empty.
        known: At least 2 vectors.

    Returns:
        From a block's number, or None for no block, to the distance.
    """
    x = x - known.mean.to(x.device)
    there = Moments(torch.zeros_like(x[0]), known.cov.to(x.device), known.n)
    moments = [_moments(x[block.to(x.device)]) for block in blocks]
    whole = functools.reduce(Moments.merge, (part for part in moments if part.n))
    # The eigenvalues of C1 C2 are those of a matrix as small as the smaller of n and d.
    few = len(x) <= x.shape[1]
    inner = x @ there.cov @ x.T if few else _root(there.cov)

    def distance(block: int | None) -> float:
        left = whole if block is None else whole.without(moments[block])
        if few:
            kept = torch.ones(len(x), dtype=torch.bool, device=x.device)
            if block is not None:
                kept[blocks[block].to(x.device)] = False
            return _gap(left, there, _centred(inner[kept][:, kept]) / (left.n - 1))
        return _distance(left, there, inner)

    return distance


_SHORT = {"features": "fd", "spatial": "sfd"}


def double(x: Tensor) -> Tensor:
    """Values in float64 where they lie, or on the CPU where the device has no float64."""
    return x.to("cpu" if x.device.type == "mps" else x.device).to(torch.float64)


def _moments(x: Tensor) -> Moments:
    mean = x.sum(dim=0) / max(len(x), 1)
    centred = x - mean
    return Moments(mean, centred.T @ centred / max(len(x) - 1, 1), len(x))


def _root(cov: Tensor) -> Tensor:
    """Some R with R R^T = cov."""
    root, failed = torch.linalg.cholesky_ex(cov)
    if not failed:
        return root
    # Without full rank there is no Cholesky root; this one takes ten times as long.
    values, vectors = torch.linalg.eigh(cov)
    return vectors * values.clamp(min=0).sqrt()


def _centred(gram: Tensor) -> Tensor:
    """Inner products of vectors, given those of the same vectors before their mean was taken off."""
    return gram - gram.mean(dim=0) - gram.mean(dim=1, keepdim=True) + gram.mean()
