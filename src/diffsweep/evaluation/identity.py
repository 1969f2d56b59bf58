"""Points are their own features: every distance is one in data space."""

from torch import nn

from diffsweep.evaluation.extractor import Extractor, sha256


def identity(dimension: int = 2) -> Extractor:
    """Extractor of points (N, dimension): themselves.

    Raises:
        ValueError: when `dimension` is not positive.
    """
    if dimension < 1:
        raise ValueError(f"extractor.dimension must be at least 1, not {dimension}")
    return Extractor(nn.Identity(), "points", dimension, sha256("identity", str(dimension)))
