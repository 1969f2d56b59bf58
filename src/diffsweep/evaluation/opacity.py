"""Pictures with opacity, as an extractor sees them: over white, as they are shown."""

from __future__ import annotations

import torch
from torch import Tensor


def over_white(x: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) of uint8 (N, 4, H, W), whose fourth channel lets white through; others as they are."""
    if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] != 4:
        return x
    opacity = x[:, 3:].to(torch.int32)
    return ((x[:, :3] * opacity + 255 * (255 - opacity) + 127) // 255).to(torch.uint8)
