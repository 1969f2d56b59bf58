"""Power-function averages of weights: what each step counts in one, and how any length is made of a few that were kept.

    average_t = average_(t-1) + (1 - (1 - 1/t)^(g + 1)) (weights_t - average_(t-1))

so that step i of the first t counts (i^(g + 1) - (i - 1)^(g + 1)) / t^(g + 1): a share of the training, however long it
is, that grows as i^g. Its relative standard deviation (of i, over t) is how its length is told.

Source: "Analyzing and Improving the Training Dynamics of Diffusion Models" (arXiv 2312.02696), sections 3.1 and 3.2;
here with the sums over steps that are really taken, in place of integrals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from diffsweep.settings import relative_std


def exponent(std: float) -> float:
    """g of the average with relative standard deviation `std`: the root of std^2 (g + 2)^2 (g + 3) = g + 1.

    Raises:
        BadValue: unless 0 < std < 0.289, where g = 0 and all steps count alike.
    """
    relative_std("std", std)
    low, high = 0.0, 1 / std
    for _ in range(200):
        g = (low + high) / 2
        low, high = (g, high) if (g + 1) / ((g + 2) ** 2 * (g + 3)) > std**2 else (low, g)
    return (low + high) / 2


def newest_share(std: float, step: int) -> float:
    """What step number `step` (from 1) counts when it is added to an average: 1 for the first."""
    return 1 - (1 - 1 / step) ** (exponent(std) + 1)


@dataclass(frozen=True, order=True)
class PowerAverage:
    """One average: of which relative standard deviation, and of the first how many steps."""

    std: float
    step: int

    @property
    def file(self) -> str:
        """The name of its file in the folder of checkpoints."""
        return f"power-{self.std:g}-{self.step}.safetensors"

    @classmethod
    def of_file(cls, name: str) -> PowerAverage | None:
        """The average that a file of that name holds; None if it is another file."""
        kind, _, rest = name.removesuffix(".safetensors").partition("-")
        std, _, step = rest.rpartition("-")
        try:
            found = cls(float(std), int(step))
        except ValueError:
            return None
        return found if kind == "power" and found.file == name else None


def coefficients(kept: Sequence[PowerAverage], wanted: PowerAverage) -> tuple[list[float], float]:
    """What each average that was kept counts in the one that is wanted, in sum 1, and how far that is from it.

    The closest combination of the steps' shares, by least squares; an average that was kept is taken as it is. The
    distance is relative: the root of the squared differences of shares over that of the squared shares that are wanted.
    """
    if wanted in kept:
        return [float(one == wanted) for one in kept], 0.0
    among = np.array([[_product(a, b) for b in kept] for a in kept])
    towards = np.array([_product(a, wanted) for a in kept])
    # Lagrange: the shares of all steps must sum to one.
    n = len(kept)
    system = np.ones((n + 1, n + 1))
    scale = among.max()
    system[:n, :n] = among / scale
    system[n, n] = 0
    found = np.linalg.lstsq(system, np.append(towards / scale, 1.0), rcond=None)[0][:n]
    own = _product(wanted, wanted)
    distance = found @ among @ found - 2 * found @ towards + own
    return [float(x) for x in found], math.sqrt(max(distance, 0.0) / own)


def _product(a: PowerAverage, b: PowerAverage) -> float:
    """The sum over steps of the products of their shares in two averages."""
    p, q = exponent(a.std) + 1, exponent(b.std) + 1
    last = min(a.step, b.step)
    return float(_products(p, q, last) * (last / a.step) ** p * (last / b.step) ** q)


@lru_cache(maxsize=65536)
def _products(p: float, q: float, steps: int) -> float:
    i = np.arange(steps + 1) / steps
    return float(np.diff(i**p) @ np.diff(i**q))
