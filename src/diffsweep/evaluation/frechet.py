"""The squared Frechet distance of two Gaussians, |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), in float64.

Source: "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", arXiv 1706.08500,
equation 6. Its bias shrinks with the number of images, so distances at different numbers cannot be compared.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


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
    def of(cls, features: Tensor) -> "Moments":
        """Moments of finite features (n, d), n >= 1, from any device."""
        x = features.to("cpu" if features.device.type == "mps" else features.device).to(torch.float64)
        mean = x.mean(dim=0)
        centred = x - mean
        return cls(mean.cpu(), (centred.T @ centred / max(len(x) - 1, 1)).cpu(), len(x))

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both sets together, as if their features had been seen at once.

        Source: T. Chan, G. Golub, R. LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
        Variances" (1979), equation 2.1: only differences of means are squared, so nothing cancels.
        """
        n = self.n + other.n
        delta = other.mean - self.mean
        scatter = self.cov * (self.n - 1) + other.cov * (other.n - 1)
        scatter += torch.outer(delta, delta) * (self.n * other.n / n)
        return Moments(self.mean + delta * (other.n / n), scatter / (n - 1), n)


def accumulate(batches: Iterable[Tensor]) -> Moments:
    """Moments of a stream of feature batches, each (n_i, d), holding one batch at a time.

    Raises:
        ValueError: when there is no vector at all, or some are NaN or infinite (the line counts them).
    """
    moments: Moments | None = None
    total = broken = 0
    for batch in batches:
        total += len(batch)
        broken += int((~torch.isfinite(batch)).any(dim=1).sum())
        if broken or not len(batch):
            continue
        part = Moments.of(batch)
        moments = part if moments is None else moments.merge(part)
    if broken:
        raise ValueError(f"{broken} of {total} feature vectors are NaN or infinite: the samples are broken")
    if moments is None:
        raise ValueError("there are no samples to score")
    return moments


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Frechet distance of the two Gaussians: finite and not negative, whatever the ranks of the covariances.

    The trace of (C1 C2)^(1/2) is the sum of the square roots of the eigenvalues of the symmetric R C2 R with
    R = C1^(1/2): real and not negative up to rounding, where those of C1 C2 turn complex.

    Raises:
        ValueError: when the features differ in number, or either side has fewer than two vectors.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"cannot compare {len(a.mean)} features with {len(b.mean)}: they come from two extractors")
    if min(a.n, b.n) < 2:
        raise ValueError(f"a Frechet distance needs at least 2 samples on each side, not {a.n} and {b.n}")
    values, vectors = torch.linalg.eigh(a.cov)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    product = root @ b.cov @ root
    cross = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * cross
    return max(float(distance), 0.0)
