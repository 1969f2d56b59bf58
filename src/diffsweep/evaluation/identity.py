"""Points are their own features: every distance is one in data space."""

from torch import Tensor, nn

from diffsweep.evaluation.extractor import Extractor, sha256
from diffsweep.mistakes import whole


class Points(nn.Module):
    """Gives points (N, dimension) as they are."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.dimension = dimension

    def forward(self, x: Tensor) -> Tensor:
        """`x` itself; raises ValueError if it is no float (N, dimension)."""
        if not x.is_floating_point() or x.shape[1:] != (self.dimension,):
            raise ValueError(f"points takes float (N, {self.dimension}), not {x.dtype} {tuple(x.shape)}")
        return x


def identity(dimension: int = 2) -> Extractor:
    """Extractor of points (N, dimension): themselves.

    Args:
        dimension: Of the points, >= 1.

    Raises:
        ValueError: when `dimension` is not positive.
    """
    whole("dimension", dimension, 1)
    return Extractor(Points(dimension), "points", dimension, sha256("identity", str(dimension)))
