"""How the square roots of a scatter matrix's eigenvalues change when a few of its vectors are taken out.

    sum sqrt(b) - sum sqrt(a) = 1/pi integral from 0 to infinity of log(det(B + z^2) / det(A + z^2)) dz
    det(A - V V^T + z^2) = det(A + z^2) det(1 - V^T (A + z^2)^-1 V)

The first line holds for each eigenvalue: sqrt(b) - sqrt(a) = 1/pi integral of log((b + z^2) / (a + z^2)) dz. In the
second A is diagonal once it has been decomposed. So m vectors fewer cost determinants of m x m, and no decomposition.

The integral is a trapezoid sum after the substitution z = sn(u) / cn(u), which with N points for eigenvalues in a given
range errs by exp(-2 pi^2 N / (log(range) + 3)) of the sum ("Computing A^alpha, log(A), and related matrix functions by
contour integrals", N. Hale, N. Higham, L. Trefethen, SIAM Journal on Numerical Analysis 46, 2008, section 4): by 1e-10
here, and rounding by no more than it does in a decomposition.
"""

from __future__ import annotations

import functools
import math

import torch
from scipy.special import ellipj, ellipkm1
from torch import Tensor

# Eigenvalues below this share of the largest are rounding.
_LEAST = 2.0**-50
_POINTS = 44

# Numbers in memory at a time: 8 MB in float64.
_AT_ONCE = 2**20


def change(values: Tensor, rows: Tensor, left: int) -> Tensor:
    """Sum of square roots of eigenvalues of the scatter matrix without some vectors, less that with them.

    Args:
        values: (r,) eigenvalues of the scatter matrix of vectors about their mean, not negative.
        rows: (m, r) those to be taken out, less the mean of all, in the basis of its eigenvectors.
        left: number of the others, at least 1: the new scatter is about their mean.
    """
    m, largest = len(rows), float(values.max())
    if not m or not largest:
        return torch.zeros_like(values[0])
    # About the new mean the scatter loses rows^T (1 + ones / left) rows, of which this is a root.
    rows = rows + rows.sum(dim=0) * ((math.sqrt(1 + m / left) - 1) / m)
    points, weights = (part.to(values.device) for part in _rule())
    one = torch.eye(m, dtype=rows.dtype, device=rows.device)
    total = torch.zeros_like(values[0])
    size = max(1, _AT_ONCE // rows.numel())
    for z2, weight in zip(points.split(size), weights.split(size), strict=True):
        inverse = 1 / (values / largest + z2[:, None])
        determinants = torch.linalg.slogdet(one - (rows * (inverse / largest)[:, None]) @ rows.T).logabsdet
        # What eigenvalues that interlace allow, whatever rounding makes of a matrix that is nearly singular.
        total += (weight * determinants.clamp(m * (z2 / (1 + z2)).log(), torch.zeros_like(z2))).sum()
    return total * math.sqrt(largest)


@functools.cache
def _rule() -> tuple[Tensor, Tensor]:
    """Squares of z, and weights, for eigenvalues from `_LEAST` to 1."""
    quarter = ellipkm1(_LEAST)
    # From the middle on z is the mirror image of what it was: there sn / cn would lose digits.
    u = (torch.arange(_POINTS // 2, dtype=torch.float64) + 0.5) * quarter / _POINTS
    sn, cn, dn, _ = (torch.from_numpy(part) for part in ellipj(u.numpy(), 1 - _LEAST))
    scale = math.sqrt(_LEAST)
    z, slope = scale * sn / cn, scale * dn / cn.square()
    z, slope = torch.cat((z, scale / z)), torch.cat((slope, scale / z.square() * slope))
    return z.square(), slope * (quarter / _POINTS / math.pi)
